//! Colours, where they are wanted.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

/// Whether text for people has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Colours,
    Plain,
}

impl Paint {
    /// Colours on a terminal that can show them, unless `NO_COLOR` says otherwise (no-color.org).
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "what a terminal can show is no configuration of the agent"
    )]
    pub fn of(out: &impl IsTerminal) -> Self {
        let says = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_dumb = says("TERM").is_none_or(|term| term == "dumb");
        if out.is_terminal() && !is_dumb && says("NO_COLOR").is_none() {
            Self::Colours
        } else {
            Self::Plain
        }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default().bold(), text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    pub(crate) fn warned(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    fn with(self, style: Style, text: &str) -> String {
        match self {
            Self::Colours => format!("{style}{text}{style:#}"),
            Self::Plain => text.to_owned(),
        }
    }
}
