//! All sources together: which profile is chosen, what is locked, and what is in force then.

use super::CommandLine;
use super::file::ConfigFile;
use super::settings::{Setting, Settings, UsageError, wrong};
use super::table::YesNo;

/// What a COMMAND behind `--` replaces, so that it may not stand where one of these is locked.
pub(super) const REPLACED: [&str; 4] = ["command", "group", "salloc-arg", "job-name"];

/// What the built-in values, the files and the command line amount to.
pub(super) struct Layers<'a> {
    /// The files, as far as they count.
    pub(super) files: &'a [ConfigFile],
    /// Everything in force, what counts more behind what counts less.
    pub(super) settings: Settings,
    /// The locks in force.
    pub(super) locks: Vec<Setting>,
}

impl<'a> Layers<'a> {
    /// Puts them together.
    ///
    /// # Errors
    /// A profile that nobody knows, or an option that the site has locked.
    pub(super) fn new(line: &CommandLine, files: &'a [ConfigFile]) -> Result<Self, UsageError> {
        let profile = profile(line, files)?;
        let mut layers = Self {
            files,
            settings: Settings::built_in(),
            locks: Vec::new(),
        };
        for file in files {
            let section = profile.as_ref().and_then(|name| file.profile(name));
            let section = section.map(|profile| &profile.settings);
            let settings = || {
                [&file.common]
                    .into_iter()
                    .chain(section)
                    .flat_map(Settings::iter)
            };
            settings().try_for_each(|setting| layers.add(setting))?;
            // Locks are for those who come later, not for the file itself.
            let locks = settings().filter(|setting| setting.spec.long == "lock");
            layers.locks.extend(locks.cloned());
        }
        line.settings
            .iter()
            .try_for_each(|setting| layers.add(setting))?;
        let mut replaced = line.command.iter().flat_map(|_| REPLACED);
        if let Some(lock) = replaced.find_map(|name| layers.lock(name)) {
            return wrong(format!(
                "the COMMAND after -- cannot be used: {} locks {}",
                lock.origin, lock.value
            ));
        }
        Ok(layers)
    }

    fn add(&mut self, setting: &Setting) -> Result<(), UsageError> {
        if let Some(lock) = self.lock(setting.spec.long) {
            return Err(setting.wrong(format_args!("locked by {}; leave it out", lock.origin)));
        }
        self.settings.add(setting.clone());
        Ok(())
    }

    /// The lock on an option.
    pub(super) fn lock(&self, long: &str) -> Option<&Setting> {
        self.locks
            .iter()
            .find(|lock| lock.locks(super::table::spec(long)))
    }

    /// What is said where the site wants no session, or this profile.
    pub(super) fn switched_off(&self) -> Result<Option<String>, UsageError> {
        let YesNo(enabled) = self.settings.one("enabled")?;
        if enabled {
            return Ok(None);
        }
        let message: Option<String> = self.settings.last("message")?;
        let place = self.settings.of("enabled").last();
        Ok(Some(message.unwrap_or_else(|| {
            let place = place.map(|setting| setting.origin.to_string());
            format!("switched off: {}", place.unwrap_or_default())
        })))
    }
}

/// The profile that was chosen last.
fn profile(line: &CommandLine, files: &[ConfigFile]) -> Result<Option<String>, UsageError> {
    let mut choice = Settings::default();
    let settings = files.iter().flat_map(|file| file.common.of("profile"));
    for setting in settings.chain(line.settings.of("profile")) {
        choice.add(setting.clone());
    }
    let name: Option<String> = choice.last("profile")?;
    let Some(setting) = choice.of("profile").last() else {
        return Ok(None);
    };
    let known = names(files);
    if known.contains(&setting.value.as_str()) {
        return Ok(name);
    }
    Err(setting.wrong(match known.is_empty() {
        true => "no configuration file has a profile".to_owned(),
        false => format!("the profiles are {}", known.join(", ")),
    }))
}

/// Every profile's name, once, in order of appearance.
pub(super) fn names(files: &[ConfigFile]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for profile in files.iter().flat_map(|file| &file.profiles) {
        if !names.contains(&profile.name.as_str()) {
            names.push(&profile.name);
        }
    }
    names
}
