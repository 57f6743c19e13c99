//! The screen.

use std::time::Instant;

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Block, Clear, Paragraph, Row, Table, Wrap},
};

use super::{
    app::App,
    sheet::{Mood, cut},
    views::View,
};

const KEYS: &[(&str, &str)] = &[
    ("q", "quit"),
    ("Tab", "view"),
    ("Enter", "backends"),
    ("s", "sort"),
    ("r", "reverse"),
    ("/", "filter"),
    ("p", "pause"),
    ("?", "help"),
];

const HELP: &str = "\
Tab, 1 to 4      services, backends, owners, verdicts
↑ ↓, j k         select a row; PageUp PageDown Home End
Enter            the backends of the selected service
s, r             sort by the next column, or the other way
/                show rows with a text only; Esc: all again
p                stop what is shown, and go on
q, Esc, Ctrl-C   quit

FLOWS/S flows begun in a second   PPS packets, BPS bits
READY   backends that take new flows, of all that are known
SHARE   of the new flows to the service's backends in the
        last interval. What several services share has one
        counter for all of them
FOR     how long the owner has been that; > or longer
HERE    what this node does about the address
-       not known: there was no interval yet, or counters
        began anew in it

Where there is no room for all columns a wider terminal
shows more of them.";

/// Colours, where they are wanted.
#[derive(Clone, Copy)]
pub(super) struct Palette {
    /// Whether they are.
    pub(super) colours: bool,
}

impl Palette {
    fn of(self, mood: Mood) -> Style {
        match mood {
            Mood::Odd if self.colours => Style::new().fg(Color::Yellow),
            Mood::Bad if self.colours => Style::new().fg(Color::Red),
            _ => Style::new(),
        }
    }
}

/// Draws everything, as it is now.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, palette: Palette, now: Instant) {
    let areas = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(2),
        Constraint::Length(1),
    ]);
    let [head, tabs, table, detail, foot] = areas.areas(frame.area());
    frame.render_widget(headline(app, palette, now, head.width), head);
    frame.render_widget(tab_line(app), tabs);
    app.page = usize::from(table.height.saturating_sub(1));
    draw_table(frame, app, palette, table);
    let selected = app.sheet.rows.get(app.cursor);
    let told = selected.map_or("", |row| row.detail.as_str());
    let told = Paragraph::new(told).wrap(Wrap { trim: true });
    frame.render_widget(told.style(Modifier::DIM), detail);
    frame.render_widget(foot_line(app), foot);
    if app.help {
        help(frame);
    }
}

fn headline(app: &App, palette: Palette, now: Instant, width: u16) -> Text<'static> {
    let fit = |line: &str| {
        let long = line.chars().count() > usize::from(width);
        let kept = line.chars().take(usize::from(width) - usize::from(long));
        kept.chain(long.then_some('…')).collect::<String>()
    };
    let [agent, source, traffic] = app.shown.headline();
    let (alert, mood) = match (app.silence(now), app.shown.alert()) {
        (Some(silence), _) => (silence, Mood::Bad),
        (None, Some((alert, true))) => (alert, Mood::Bad),
        (None, Some((alert, false))) => (alert, Mood::Odd),
        (None, None) => (String::new(), Mood::Well),
    };
    let refused = match app.shown.sample.status.is.source.current {
        true => Mood::Well,
        false => Mood::Bad,
    };
    Text::from(vec![
        Line::styled(fit(&agent), Modifier::BOLD),
        Line::styled(fit(&source), palette.of(refused)),
        Line::styled(fit(&traffic), Modifier::BOLD),
        Line::styled(fit(&alert), palette.of(mood)),
    ])
}

fn tab_line(app: &App) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let style = match view == app.view {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        spans.push(Span::styled(format!(" {number} {} ", view.name()), style));
    }
    if let Some(service) = &app.service {
        spans.push(Span::raw(format!(" of {service}")));
    }
    Line::from(spans)
}

fn draw_table(frame: &mut Frame<'_>, app: &mut App, palette: Palette, area: Rect) {
    // The selected row stays on the screen.
    let first = (app.cursor + 1).saturating_sub(app.page.max(1));
    let full = app.sheet.rows.len().saturating_sub(app.page);
    app.offset = app.offset.clamp(first, app.cursor.max(first)).min(full);
    let (sheet, sort) = (&app.sheet, app.sort());
    let columns = sheet.fit(usize::from(area.width), sort.column);
    let aligned = |index: usize, width: usize, text: String| {
        let number = sheet.columns.get(index).is_some_and(|it| it.number);
        let text = cut(&text, width);
        Text::from(text).alignment(if number {
            Alignment::Right
        } else {
            Alignment::Left
        })
    };
    let head = columns.iter().map(|&(index, width)| {
        let name = sheet.columns.get(index).map_or("", |it| it.name);
        let arrow = match (index == sort.column, sort.descending) {
            (true, true) => "↓",
            (true, false) => "↑",
            (false, _) => "",
        };
        aligned(index, width, format!("{name}{arrow}"))
    });
    let head = Row::new(head).style(Modifier::BOLD);
    let shown = sheet
        .rows
        .iter()
        .enumerate()
        .skip(app.offset)
        .take(app.page);
    let rows = shown.map(|(place, row)| {
        let cells = columns.iter().map(|&(index, width)| {
            let cell = row.cells.get(index).map(ToString::to_string);
            aligned(index, width, cell.unwrap_or_default())
        });
        let style = palette.of(row.mood);
        Row::new(cells.collect::<Vec<_>>()).style(match place == app.cursor {
            true => style.add_modifier(Modifier::REVERSED),
            false => style,
        })
    });
    let widths = columns.iter().map(|&(_, width)| {
        let width = u16::try_from(width).unwrap_or(u16::MAX);
        Constraint::Length(width)
    });
    let table = Table::new(rows, widths).header(head).column_spacing(1);
    frame.render_widget(table, area);
    if sheet.rows.is_empty() && area.height > 1 {
        let below = Rect::new(area.x, area.y + 1, area.width, 1);
        let none = match (app.view, app.filter.is_empty()) {
            (_, false) => "nothing has this text; Esc shows all again",
            (View::Services, true) => "no services",
            (View::Backends, true) => "no backends",
            (View::Owners, true) => "no virtual IPs",
            (View::Verdicts, true) => "no packets yet",
        };
        frame.render_widget(Line::from(none), below);
    }
}

fn foot_line(app: &App) -> Line<'static> {
    if app.typing {
        return Line::from(format!("/{}█   Enter keeps it, Esc shows all", app.filter));
    }
    let mut spans = Vec::new();
    if app.paused {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        spans.push(Span::styled("PAUSED", style));
        spans.push(Span::raw("  "));
    }
    if !app.filter.is_empty() {
        spans.push(Span::raw(format!("/{}  ", app.filter)));
    }
    for (key, what) in KEYS {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        spans.push(Span::styled(*key, bold));
        spans.push(Span::raw(format!(" {what}  ")));
    }
    let rows = app.sheet.rows.len();
    spans.push(Span::raw(match rows {
        0 => String::new(),
        _ => format!("{}/{rows}", app.cursor + 1),
    }));
    Line::from(spans)
}

fn help(frame: &mut Frame<'_>) {
    let size = |all: usize| u16::try_from(all + 2).unwrap_or(u16::MAX);
    let wide = HELP.lines().map(|it| it.chars().count()).max();
    let area = frame.area().centered(
        Constraint::Length(size(wide.unwrap_or_default())),
        Constraint::Length(size(HELP.lines().count())),
    );
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" naru top ");
    frame.render_widget(Paragraph::new(HELP).block(block), area);
}
