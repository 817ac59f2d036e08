//! A configuration file: `key = value` lines with the names of the long options, and sections.
//!
//! Pure: it is given the text. Every line is looked at, those of profiles too that nobody chose, so
//! that a wrong one is found when it is written and not by the one user who needs it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bstr::ByteSlice;

use super::settings::{Origin, Setting, Settings, UsageError, wrong};
use super::table::{Place, Value, YesNo, named};

/// Whose word a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The site's: it may lock options.
    Site,
    /// The user's own, or one that the user names with `--config`.
    User,
}

/// The section of a profile, or all sections of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Its lines.
    pub settings: Settings,
}

/// A file that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is.
    pub path: Arc<Path>,
    /// Whose it is.
    pub whose: Whose,
    /// The lines in front of the first section.
    pub common: Settings,
    /// The profiles, in order of appearance.
    pub profiles: Vec<Profile>,
}

impl ConfigFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The first line that is wrong, with what would be right.
    pub fn read(path: &Path, whose: Whose, text: &[u8]) -> Result<Self, UsageError> {
        let mut file = Self {
            path: path.into(),
            whose,
            common: Settings::default(),
            profiles: Vec::new(),
        };
        // Where the next line goes: an index of `profiles`, once there was a section.
        let mut section = None;
        for (index, line) in text.lines().enumerate() {
            let origin = Origin::File {
                path: Arc::clone(&file.path),
                line: index + 1,
            };
            let Ok(line) = line.to_str() else {
                return wrong(format!("{origin}: it is not UTF-8"));
            };
            let line = line.trim_matches(BLANKS);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with('[') {
                let Some(name) = section_name(line) else {
                    return wrong(format!(
                        "{origin}: {line:?}: [profile NAME] is expected, with a NAME of letters, \
                         digits, '.', '_' and '-'"
                    ));
                };
                section = Some(file.section(name));
                continue;
            }
            let setting = setting(line, origin, whose, section.is_some())?;
            match section {
                None => file.common.push(setting),
                Some(at) => file.profiles[at].settings.push(setting),
            }
        }
        Ok(file)
    }

    /// The profile of this name.
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// What is left of the site's file for those who want no file: what it locks, and what counts
    /// in any case. Its profiles go unless it locks the choice.
    pub fn without_what_is_free(self) -> Self {
        let locks: Vec<Setting> = self.common.of("lock").cloned().collect();
        let is_locked = |setting: &&Setting| {
            setting.spec.place == Place::SiteFile
                || locks.iter().any(|lock| lock.locks(setting.spec))
        };
        let kept = |settings: &Settings| settings.iter().filter(is_locked).cloned().collect();
        let keeps_profiles = locks.iter().any(|lock| lock.value == "profile");
        let profiles = self.profiles.iter().filter(|_| keeps_profiles);
        let profiles = profiles.map(|profile| Profile {
            name: profile.name.clone(),
            settings: kept(&profile.settings),
        });
        Self {
            common: kept(&self.common),
            profiles: profiles.collect(),
            ..self
        }
    }

    /// The index of the profile of this name, made where there was none.
    fn section(&mut self, name: &str) -> usize {
        let known = self
            .profiles
            .iter()
            .position(|profile| profile.name == name);
        known.unwrap_or_else(|| {
            self.profiles.push(Profile {
                name: name.to_owned(),
                settings: Settings::default(),
            });
            self.profiles.len() - 1
        })
    }
}

impl fmt::Display for ConfigFile {
    /// The text that [`ConfigFile::read`] makes this file from, but for comments and the number of
    /// its lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let print = |f: &mut fmt::Formatter<'_>, settings: &Settings| {
            settings
                .iter()
                .try_for_each(|setting| writeln!(f, "{} = {}", setting.name, setting.value))
        };
        print(f, &self.common)?;
        self.profiles.iter().try_for_each(|profile| {
            writeln!(f, "\n[profile {}]", profile.name)?;
            print(f, &profile.settings)
        })
    }
}

/// What may stand around names and values without being a part of them.
const BLANKS: [char; 3] = [' ', '\t', '\r'];

fn section_name(line: &str) -> Option<&str> {
    let inner = line.strip_prefix('[')?.strip_suffix(']')?;
    let name = inner.trim_matches(BLANKS).strip_prefix("profile")?;
    let name = name.strip_prefix(BLANKS)?.trim_matches(BLANKS);
    let is_right = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (!name.is_empty() && !name.starts_with('-') && name.chars().all(is_right)).then_some(name)
}

/// One `key = value`.
fn setting(
    line: &str,
    origin: Origin,
    whose: Whose,
    in_profile: bool,
) -> Result<Setting, UsageError> {
    let Some((key, value)) = line.split_once('=') else {
        return wrong(format!("{origin}: {line:?}: NAME = VALUE is expected"));
    };
    let (key, value) = (key.trim_matches(BLANKS), value.trim_matches(BLANKS));
    let Some((spec, name)) = named(key) else {
        let plain = key.trim_start_matches('-');
        let remedy = match named(plain) {
            Some(_) => format!("a file says {plain}, without dashes"),
            None => "--help lists the options, without the dashes".to_owned(),
        };
        return wrong(format!("{origin}: unknown option {key:?}: {remedy}"));
    };
    let place = match spec.place {
        Place::CommandLine => Some("it can stand on the command line only"),
        Place::Profile if !in_profile => Some("it belongs into a section [profile NAME]"),
        Place::SiteFile if whose != Whose::Site => Some("it can stand in the site's file only"),
        Place::Anywhere if in_profile && spec.long == "profile" => {
            Some("it has to stand in front of the first section")
        }
        _ => None,
    };
    if let Some(place) = place {
        return wrong(format!("{origin}: {key}: {place}"));
    }
    let mut setting = Setting {
        spec,
        name,
        value: value.to_owned(),
        origin,
    };
    if value.is_empty() {
        return Ok(setting);
    }
    if value.contains('\0') {
        return Err(setting.wrong("a NUL byte is in it"));
    }
    if spec.value == Value::None {
        let YesNo(is_set) = value.parse().map_err(|error| setting.wrong(error))?;
        // No flag is the same as none of them before.
        let value = if is_set { Setting::SET } else { "" };
        setting.value = value.to_owned();
        return Ok(setting);
    }
    if let Err(error) = spec.value.check(value) {
        return Err(setting.wrong(error));
    }
    if spec.long == "lock" && !named(value).is_some_and(|(spec, _)| spec.place == Place::Anywhere) {
        return Err(setting.wrong("the name of an option that others could set is expected"));
    }
    Ok(setting)
}
