//! Settings: what some source says about an option, and which source that is.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::table::{Spec, TABLE, Value, spec};

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The table.
    BuiltIn,
    /// A configuration file.
    File {
        /// Which one.
        path: Arc<Path>,
        /// The line in it, from 1.
        line: usize,
    },
    /// The command line.
    CommandLine,
}

/// One value for one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The option.
    pub spec: &'static Spec,
    /// The name by which it was called.
    pub name: &'static str,
    /// Its value, as it was written; [`Setting::SET`] for a flag.
    pub value: String,
    /// Where that was.
    pub origin: Origin,
}

impl Setting {
    /// The value of a flag that is there.
    pub const SET: &'static str = "yes";

    /// Does it take back what was said before it? An empty value does so in a file, and everywhere
    /// where values add up.
    fn takes_back(&self) -> bool {
        let adds_up = self.spec.repeatable && self.spec.value != Value::None;
        self.value.is_empty() && (adds_up || matches!(self.origin, Origin::File { .. }))
    }

    /// Is it a lock on this option?
    pub(super) fn locks(&self, spec: &Spec) -> bool {
        self.spec.long == "lock" && spec.names().any(|name| name == self.value)
    }

    /// A complaint about this setting, with what would be right.
    pub(super) fn wrong(&self, why: impl fmt::Display) -> UsageError {
        UsageError(format!("{self}: {why}"))
    }
}

impl fmt::Display for Setting {
    /// The option as it is written where this setting comes from, and its value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = (self.name, &self.value);
        match &self.origin {
            Origin::BuiltIn => write!(f, "built-in {name} {value:?}"),
            Origin::CommandLine => write!(f, "--{name} {value:?}"),
            origin @ Origin::File { .. } => write!(f, "{origin}: {name} {value:?}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::CommandLine => f.write_str("command line"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
        }
    }
}

/// Settings of one source or of several, those that count more behind those that count less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(Vec<Setting>);

impl Settings {
    /// What the table says.
    pub fn built_in() -> Self {
        let has_value = |spec: &&Spec| !spec.built_in.is_empty();
        let setting = |spec: &'static Spec| Setting {
            spec,
            name: spec.long,
            value: spec.built_in.to_owned(),
            origin: Origin::BuiltIn,
        };
        TABLE.iter().filter(has_value).map(setting).collect()
    }

    /// Adds what a further source says. What is built in cannot be taken back.
    pub fn add(&mut self, setting: Setting) {
        if setting.takes_back() {
            let long = setting.spec.long;
            self.0
                .retain(|it| it.spec.long != long || it.origin == Origin::BuiltIn);
        } else {
            self.0.push(setting);
        }
    }

    /// Adds a line of the same source, whatever it means for the others.
    pub(super) fn push(&mut self, setting: Setting) {
        self.0.push(setting);
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// What is said about one option, in order.
    pub fn of(&self, long: &str) -> impl Iterator<Item = &Setting> {
        let long = spec(long).long;
        self.iter().filter(move |setting| setting.spec.long == long)
    }

    /// How many times an option was given.
    pub fn count(&self, long: &str) -> usize {
        self.of(long).count()
    }

    /// Every value of an option, in order.
    ///
    /// # Errors
    /// The first value that is not what the table, and then `T`, expects.
    pub fn all<T>(&self, long: &str) -> Result<Vec<T>, UsageError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let mut values = Vec::new();
        self.each(long, &mut |value| {
            values.push(value.parse().map_err(in_words::<T>)?);
            Ok(())
        })?;
        Ok(values)
    }

    /// The last value of an option, if it has one.
    ///
    /// # Errors
    /// As with [`Settings::all`]: a wrong value is none the better for a later one.
    pub fn last<T>(&self, long: &str) -> Result<Option<T>, UsageError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let mut last = None;
        self.each(long, &mut |value| {
            last = Some(value.parse().map_err(in_words::<T>)?);
            Ok(())
        })?;
        Ok(last)
    }

    /// The last value of an option that has a built-in one.
    ///
    /// # Errors
    /// As with [`Settings::last`], and where the built-in settings are missing.
    pub fn one<T>(&self, long: &str) -> Result<T, UsageError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let last = self.last(long)?;
        last.ok_or_else(|| UsageError(format!("{long} has no value")))
    }

    /// Has every value of an option read, in order, that is what the table expects. (As little as may
    /// be is made anew for each type of a value: that was 12 KB of the program.)
    fn each(
        &self,
        long: &str,
        read: &mut dyn FnMut(&str) -> Result<(), String>,
    ) -> Result<(), UsageError> {
        for setting in self.of(long) {
            let checked = setting.spec.value.check(&setting.value);
            checked
                .and_then(|()| read(&setting.value))
                .map_err(|error| setting.wrong(error))?;
        }
        Ok(())
    }
}

fn in_words<T: FromStr<Err: fmt::Display>>(error: T::Err) -> String {
    error.to_string()
}

impl FromIterator<Setting> for Settings {
    fn from_iter<I: IntoIterator<Item = Setting>>(settings: I) -> Self {
        Self(settings.into_iter().collect())
    }
}

/// Wrong use, as one line that names the option, the value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl UsageError {
    /// Wrong use that is no matter of a single value.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A control character, of a path for example, is shown, not sent.
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

impl std::error::Error for UsageError {}

/// Wrong use that is no matter of a single value.
pub(super) fn wrong<T>(text: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError::new(text.into()))
}
