use ratatui::{
    Frame,
    layout::{Constraint, Layout, Position},
    text::Line,
    widgets::{Block, Clear, Padding, Paragraph},
};
use vault_core::printable;
use zeroize::Zeroizing;

use super::{about, wrapped};
use crate::tui::{dialog::Dialog, model::Model};

/// No dialog is wider, in columns: longer lines are hard to read.
const WIDEST: u16 = 76;

/// Over what else there is.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, now: u64) {
    let screen = frame.area();
    let outer = WIDEST.min(screen.width);
    let inner = outer.saturating_sub(4);
    let Some((text, field)) = contents(model, now) else { return };
    let mut text = wrapped(&text, inner);
    if field.is_some() && !text.is_empty() {
        text.push(String::new());
    }
    let field_height = u16::from(field.is_some());
    let room = screen.height.saturating_sub(2 + field_height);
    let height = u16::try_from(text.len()).unwrap_or(u16::MAX).min(room);
    let area = screen.centered(Constraint::Length(outer), Constraint::Length(height + 2 + field_height));
    let hidden = text.len() - usize::from(height);
    let scroll = match &mut model.dialog {
        Some(Dialog::Said { scroll, .. } | Dialog::Details { scroll }) => {
            *scroll = hidden.min(*scroll);
            *scroll
        }
        // The last that was told matters most.
        _ => hidden,
    };
    let block = Block::bordered().padding(Padding::horizontal(1));
    let block = if hidden > scroll { block.title_bottom("↓ more") } else { block };
    let [words, line] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(field_height)]).areas(block.inner(area));
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    let text: Vec<_> = text.into_iter().skip(scroll).map(Line::raw).collect();
    frame.render_widget(Paragraph::new(text), words);
    if let Some(field) = field {
        let field = Line::raw(field);
        let width = u16::try_from(field.width()).unwrap_or(u16::MAX);
        // Its end is seen, where it is being typed.
        let beyond = width.saturating_add(1).saturating_sub(line.width);
        frame.render_widget(Paragraph::new(field).scroll((0, beyond)), line);
        let end = line.x.saturating_add(width.saturating_sub(beyond));
        frame.set_cursor_position(Position::new(end, line.y));
    }
}

/// What is to be read, and the line that is typed.
fn contents(model: &Model, now: u64) -> Option<(Zeroizing<String>, Option<String>)> {
    let (text, field) = match model.dialog.as_ref()? {
        // It is typed on a line of the screen.
        Dialog::Filter => return None,
        Dialog::Question { prompt, hidden, typed } => {
            let typed = typed.text();
            let shown = if *hidden { "•".repeat(typed.chars().count()) } else { printable(typed) };
            (model.notes.join("\n"), Some(format!("{}{shown}", printable(prompt))))
        }
        Dialog::Rename { name, typed, .. } => {
            let text = format!("Another name for {name}; an empty one restores the site's.");
            (text, Some(format!("Name: {}", printable(typed.text()))))
        }
        Dialog::Said { text, .. } => (text.to_string(), None),
        Dialog::Details { .. } => (about(model, now), None),
    };
    Some((Zeroizing::new(text), field))
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend, termion::event::Key};

    use crate::tui::{
        model::Model,
        view::{self, Look},
        worker::{Event, Job},
    };

    /// passholdd may say anything, and windows may have any size.
    #[test]
    fn whatever_is_asked_is_drawn_in_every_window() {
        for prompt in
            ["PIN: ".to_owned(), "x".repeat(1 << 17), "仕".repeat(70_000), "\u{1b}[2J\n\n".to_owned()]
        {
            let (mut model, _) = Model::new();
            model.running = Some(Job::SetUp);
            model.event(Event::Noted(prompt.clone()));
            model.event(Event::Asked { prompt, hidden: true });
            for _ in 0..300 {
                model.key(Key::Char('é'));
            }
            for (columns, rows) in [(0, 0), (1, 1), (2, 3), (5, 2), (40, 10), (80, 24), (300, 100)] {
                let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
                terminal.draw(|frame| view::draw(frame, &mut model, Look { colour: true }, 0, 0)).unwrap();
            }
        }
    }
}
