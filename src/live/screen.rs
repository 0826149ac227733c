//! The members in a terminal.

use std::time::Duration;

use anyhow::Context;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::{Block, Cell, Paragraph, Row as TableRow, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame as Canvas};

use super::{Frame, Line, Shown, number, role};

/// The terminal while it is ours; given back when dropped.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    pub(super) fn open() -> anyhow::Result<Self> {
        Ok(Self(ratatui::try_init().context("take over the terminal")?))
    }

    /// Draws, and looks for a key that ends it.
    pub(super) fn draw(&mut self, frame: &Frame, curve: &[f64]) -> anyhow::Result<Shown> {
        self.0.draw(|canvas| paint(canvas, frame, curve)).context("draw")?;
        pressed()
    }

    /// Says why there is nothing to draw.
    pub(super) fn complain(&mut self, why: &str) -> anyhow::Result<Shown> {
        self.0
            .draw(|canvas| canvas.render_widget(Paragraph::new(why), canvas.area()))
            .context("draw")?;
        pressed()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// The terminal gives no signal for Ctrl-C while it is ours, but a key.
fn pressed() -> anyhow::Result<Shown> {
    while event::poll(Duration::ZERO).context("read the keyboard")? {
        if let Event::Key(key) = event::read().context("read the keyboard")?
            && ends(&key)
        {
            return Ok(Shown::Enough);
        }
    }
    Ok(Shown::GoOn)
}

fn ends(key: &KeyEvent) -> bool {
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

fn paint(canvas: &mut Canvas<'_>, frame: &Frame, curve: &[f64]) {
    let members = u16::try_from(frame.lines.len()).unwrap_or(u16::MAX).saturating_add(3);
    let [head, table, rates, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(members),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(canvas.area());
    let leader = frame.leader.as_deref().unwrap_or("none");
    let title = format!(
        "leader {leader}   term {}   elections {}   {:.0} writes/s",
        frame.term, frame.elections, frame.writes_per_s
    );
    canvas.render_widget(Text::styled(title, Modifier::BOLD), head);
    canvas.render_widget(members_table(frame), table);
    // The newest that there is room for.
    let room = usize::from(rates.width.saturating_sub(2));
    let newest = &curve[curve.len().saturating_sub(room)..];
    let bars: Vec<u64> = newest.iter().map(|rate| whole(*rate)).collect();
    let block = Block::bordered().title("writes a second");
    canvas.render_widget(Sparkline::default().block(block).data(&bars), rates);
    canvas.render_widget(Paragraph::new("q: quit"), foot);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate to draw")]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn members_table(frame: &Frame) -> Table<'static> {
    let head = ["ID", "NAME", "ROLE", "STATE", "APPLIED", "LAG", "APPLIED/S", "ANSWER MS"];
    let widths = [4, 16, 9, 12, 12, 8, 10, 10].map(Constraint::Length);
    let rows = frame.lines.iter().map(table_row);
    Table::new(rows, widths)
        .header(TableRow::new(head).style(Modifier::BOLD))
        .block(Block::bordered().title("members"))
}

fn table_row(line: &Line) -> TableRow<'static> {
    let Line { row, applied_per_s } = line;
    let rate = applied_per_s.map_or_else(|| "?".to_owned(), |rate| format!("{rate:.0}"));
    let answer = row.answered_in_ms.map_or_else(|| "?".to_owned(), |ms| format!("{ms:.1}"));
    let cells = [
        row.id.to_string(),
        row.name.clone(),
        role(row).to_owned(),
        row.state.to_owned(),
        number(row.applied),
        number(row.lag),
        rate,
        answer,
    ];
    let style = match row.state {
        "running" if row.leads => Style::new().fg(Color::Green),
        "running" => Style::new(),
        _ => Style::new().fg(Color::Red),
    };
    TableRow::new(cells.map(Cell::from)).style(style)
}

/// What would be on a terminal of that size.
#[cfg(test)]
pub(super) fn rendered(frame: &Frame, curve: &[f64], width: u16, height: u16) -> String {
    let backend = ratatui::backend::TestBackend::new(width, height);
    let mut terminal = ratatui::Terminal::new(backend).unwrap();
    terminal.draw(|canvas| paint(canvas, frame, curve)).unwrap();
    terminal.backend().to_string()
}
