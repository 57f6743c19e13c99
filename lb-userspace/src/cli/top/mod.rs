//! `naru top`: what goes through the running agent, on a terminal that is drawn again and again.

mod app;
mod draw;
mod picture;
mod rates;
mod sample;
mod sheet;
#[cfg(test)]
mod tests;
mod views;

use std::{
    env,
    io::{IsTerminal, stdout},
    path::Path,
    process::{self, ExitCode},
    sync::mpsc::{self, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{CommandFactory, error::ErrorKind};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use self::{
    app::{App, Next},
    draw::Palette,
    picture::Picture,
    sample::Sample,
    views::View,
};
use super::{Cli, show};

/// How long a key is waited for before looking whether there are news.
const TICK: Duration = Duration::from_millis(100);
/// How often the screen is drawn where nothing happens: it tells how old data are.
const REDRAW: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Rates are those of one interval, by the agent's counters and the time that passed between its
answers. Columns that a narrow terminal has no room for are left out. Colours only repeat what
is written; NO_COLOR takes them away.

Keys: Tab or 1-4 another view; up, down, j, k, PageUp, PageDown, Home, End select; Enter the
backends of a service; s another column to sort by, r the other way; / filter, p pause, ? help,
q quit.

Examples:
  naru top                                  services, the busiest first
  naru top --view verdicts --interval 5     what becomes of packets, over five seconds each
  naru top --once                           one interval as text, for pipes
  naru top --once --view backends | grep default/web";

/// Arguments of `naru top`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What to look at first
    #[arg(long, value_name = "VIEW", default_value = "services")]
    view: View,
    /// Ask the agent every so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Print one interval as plain text and end
    #[arg(long)]
    pub(super) once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|it| (0.1..=3600.0).contains(it));
    let seconds = seconds.ok_or("write seconds, from 0.1 to 3600")?;
    Ok(Duration::from_secs_f64(seconds))
}

/// Shows the agent until somebody quits, or once.
///
/// # Errors
/// Where no agent answers at first, or the terminal cannot be used.
pub(super) fn run(args: &Args, run_dir: &Path) -> anyhow::Result<ExitCode> {
    if args.once {
        once(args, run_dir)?;
    } else if stdout().is_terminal() {
        watch(args, run_dir)?;
    } else {
        let what = "standard output is no terminal: use `naru top --once` for text, or \
                    `naru services -o json` for programs";
        let error = Cli::command().error(ErrorKind::MissingRequiredArgument, what);
        error.print().context("standard error")?;
        // As of all command lines that are not understood.
        return Ok(ExitCode::from(2));
    }
    Ok(ExitCode::SUCCESS)
}

fn once(args: &Args, run_dir: &Path) -> anyhow::Result<()> {
    let before = Picture::new(Sample::take(run_dir)?, None);
    thread::sleep(args.interval);
    let now = Picture::new(Sample::take(run_dir)?, Some(&before));
    for line in now.headline() {
        println!("{line}");
    }
    if let Some((alert, _)) = now.alert() {
        println!("{alert}");
    }
    println!();
    let sheet = App::new(args.view, now, args.interval).sheet;
    let head: Vec<&str> = sheet.columns.iter().map(|it| it.name).collect();
    let texts = sheet.columns.iter().filter(|it| !it.number).count();
    let mut table = show::table(&head, texts);
    for row in &sheet.rows {
        table.add_row(&row.cells);
    }
    show::print(&table);
    Ok(())
}

/// Gives the terminal back, however this ends; a panic does so before it is told.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // Where that fails the terminal is gone, and with it whoever could be told.
        let _ = ratatui::try_restore();
    }
}

fn watch(args: &Args, run_dir: &Path) -> anyhow::Result<()> {
    let first = Picture::new(Sample::take(run_dir)?, None);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals")?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // Not left to the loop below: where the terminal is gone, waiting for a key
            // never ends.
            drop(Restore);
            process::exit(0);
        }
    });
    let (want, wanted) = mpsc::channel();
    let (tell, news) = mpsc::channel();
    let (dir, interval) = (run_dir.to_owned(), args.interval);
    thread::spawn(move || sample::watch(&dir, interval, &wanted, &tell));

    let palette = Palette {
        colours: env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
    };
    let _restore = Restore;
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let mut app = App::new(args.view, first, args.interval);
    let (mut asked, mut drawn) = (None, None);
    loop {
        loop {
            match news.try_recv() {
                Ok(it) => app.hear(it),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => anyhow::bail!("nobody asks the agent any more"),
            }
            drawn = None;
        }
        let now = Instant::now();
        if drawn.is_none_or(|at| now.saturating_duration_since(at) >= REDRAW) {
            terminal
                .draw(|frame| draw::draw(frame, &mut app, palette, now))
                .context("the terminal")?;
            drawn = Some(now);
        }
        if asked != app.address() {
            asked = app.address();
            want.send(asked).context("nobody asks the agent any more")?;
        }
        if event::poll(TICK).context("the terminal")? {
            drawn = None;
            if let Event::Key(key) = event::read().context("the terminal")?
                && key.kind != KeyEventKind::Release
                && app.press(key) == Next::Quit
            {
                return Ok(());
            }
        }
    }
}
