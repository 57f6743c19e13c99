//! What is looked at and how: the state behind the screen, and the keys that change it.

use std::{
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{picture::Picture, sample::News, sheet::Sheet, views::View};
use crate::control::Owner;

/// The column that a view is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    /// Which.
    pub(super) column: usize,
    /// The largest on top.
    pub(super) descending: bool,
}

/// The state behind the screen.
pub(super) struct App {
    /// What is looked at.
    pub(super) view: View,
    /// The service whose backends alone are shown.
    pub(super) service: Option<String>,
    /// Text that rows must have.
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    /// Whether what is shown stays.
    pub(super) paused: bool,
    /// Whether the keys are explained.
    pub(super) help: bool,
    /// What is shown.
    pub(super) shown: Rc<Picture>,
    /// Its table, in order.
    pub(super) sheet: Sheet,
    /// Place of the selected row.
    pub(super) cursor: usize,
    /// The first row on the screen.
    pub(super) offset: usize,
    /// Rows that the screen has room for.
    pub(super) page: usize,
    /// Why the agent does not answer.
    silence: Option<String>,
    latest: Rc<Picture>,
    owner: Option<Owner>,
    interval: Duration,
    sorts: [Sort; 4],
    /// Keys of the rows that were chosen; none: whatever is on top.
    chosen: [Option<String>; 4],
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Do.
    Go,
    /// Leave.
    Quit,
}

impl App {
    /// A view of the first answer; there is another one in every interval.
    pub(super) fn new(view: View, first: Picture, interval: Duration) -> Self {
        let first = Rc::new(first);
        let mut app = Self {
            view,
            service: None,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            sheet: view.sheet(&first, None, None),
            shown: Rc::clone(&first),
            cursor: 0,
            offset: 0,
            page: 1,
            silence: None,
            latest: first,
            owner: None,
            interval,
            sorts: View::ALL.map(|view| Sort::by(view, view.main_column())),
            chosen: [const { None }; 4],
        };
        app.refresh();
        app
    }

    /// Takes in what became of asking.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Sample(sample) => {
                self.silence = None;
                self.latest = Rc::new(Picture::new(*sample, Some(&self.latest)));
                if !self.paused {
                    self.shown = Rc::clone(&self.latest);
                }
            }
            News::Owner(owner) => self.owner = Some(owner),
            News::Silence(why) => self.silence = Some(why),
        }
        self.refresh();
    }

    /// Why what is shown is old, where it is.
    pub(super) fn silence(&self, now: Instant) -> Option<String> {
        let age = now.saturating_duration_since(self.latest.sample.status.at);
        let why = match &self.silence {
            Some(why) => why,
            None if age > 3 * self.interval + Duration::from_secs(1) => "it takes its time",
            None => return None,
        };
        Some(format!("NO ANSWER, data of {}s ago: {why}", age.as_secs()))
    }

    /// The address whose owner is to be asked for.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let row = self.sheet.rows.get(self.cursor);
        row.filter(|_| self.view == View::Owners)?.key.parse().ok()
    }

    /// What the view is sorted by.
    pub(super) fn sort(&self) -> Sort {
        self.sorts[self.view as usize]
    }

    /// Does what a key says.
    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Next::Quit,
                _ => Next::Go,
            };
        }
        if self.help {
            self.help = false;
        } else if self.typing {
            self.type_filter(key.code);
        } else {
            return self.command(key.code);
        }
        Next::Go
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Up | KeyCode::Down => {
                self.typing = false;
                self.command(key);
            }
            _ => {}
        }
        self.refresh();
    }

    fn command(&mut self, key: KeyCode) -> Next {
        let last = self.sheet.rows.len().saturating_sub(1);
        let page = self.page.max(1);
        match key {
            KeyCode::Char('q') => return Next::Quit,
            // Out of what was gone into last.
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc if self.service.is_some() => self.look_at(View::Services),
            KeyCode::Esc => return Next::Quit,
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(View::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => {
                self.look_at(View::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.cursor.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(last.min(self.cursor + 1)),
            KeyCode::PageUp => self.choose(self.cursor.saturating_sub(page)),
            KeyCode::PageDown => self.choose(last.min(self.cursor + page)),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(last),
            KeyCode::Enter => self.enter(),
            KeyCode::Char('s') => {
                let column = (self.sort().column + 1) % self.view.columns().len();
                self.sorts[self.view as usize] = Sort::by(self.view, column);
            }
            KeyCode::Char('r') => {
                let sort = &mut self.sorts[self.view as usize];
                sort.descending = !sort.descending;
            }
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                self.shown = Rc::clone(&self.latest);
            }
            KeyCode::Char('?' | 'h') => self.help = true,
            _ => return Next::Go,
        }
        self.refresh();
        Next::Go
    }

    fn turn(&mut self, by: usize) {
        self.look_at(View::ALL[(self.view as usize + by) % View::ALL.len()]);
    }

    fn look_at(&mut self, view: View) {
        self.view = view;
        self.service = None;
        self.filter.clear();
        (self.cursor, self.offset) = (0, 0);
    }

    /// From a service to its backends.
    fn enter(&mut self) {
        let Some(row) = self.sheet.rows.get(self.cursor) else {
            return;
        };
        if self.view != View::Services {
            return;
        }
        let key = row.key.clone();
        let name = key.split(' ').next().map(str::to_owned);
        self.look_at(View::Backends);
        self.chosen[View::Services as usize] = Some(key);
        self.chosen[View::Backends as usize] = None;
        self.service = name;
    }

    fn choose(&mut self, place: usize) {
        self.cursor = place;
        let key = self.sheet.rows.get(place).map(|row| row.key.clone());
        self.chosen[self.view as usize] = key;
    }

    /// Makes the table anew, with the same row selected if it is still there.
    fn refresh(&mut self) {
        let service = self.service.as_deref();
        self.sheet = self.view.sheet(&self.shown, service, self.owner.as_ref());
        self.sheet.filter(&self.filter);
        let sort = self.sort();
        self.sheet.sort(sort.column, sort.descending);
        let chosen = self.chosen[self.view as usize].as_ref();
        let place = chosen.and_then(|key| self.sheet.rows.iter().position(|it| it.key == *key));
        let last = self.sheet.rows.len().saturating_sub(1);
        self.cursor = place.unwrap_or(self.cursor).min(last);
    }
}

impl Sort {
    /// Names from the first on, numbers from the largest.
    fn by(view: View, column: usize) -> Self {
        let descending = view.columns().get(column).is_some_and(|it| it.number);
        Self { column, descending }
    }
}
