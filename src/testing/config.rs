//! Configuration files of any bytes.

use std::path::Path;

use crate::options::{CommandLine, ConfigFile, Whose, request};

/// A section's name, and its options with their values.
type Section<'a> = (&'a str, Vec<(&'static str, &'a str)>);

/// What a file says, without where it says it.
fn content(file: &ConfigFile) -> Vec<Section<'_>> {
    let profiles = file.profiles.iter();
    let profiles = profiles.map(|profile| (profile.name.as_str(), &profile.settings));
    let sections = std::iter::once(("", &file.common)).chain(profiles);
    sections
        .map(|(name, settings)| {
            let settings = settings.iter();
            (
                name,
                settings
                    .map(|it| (it.spec.long, it.value.as_str()))
                    .collect(),
            )
        })
        .collect()
}

fn one_line(text: &str) {
    assert!(
        !text.is_empty() && !text.contains(char::is_control),
        "{text:?}"
    );
}

/// Reads `data` as a file. What is understood is the same when printed and read again, and gives a
/// session, a text, or one line of complaint, with every profile; what is not is explained in one
/// line.
pub fn check(data: &[u8]) {
    for whose in [Whose::Site, Whose::User] {
        let file = match ConfigFile::read(Path::new("/etc/some.conf"), whose, data) {
            Ok(file) => file,
            Err(error) => {
                one_line(&error.to_string());
                continue;
            }
        };
        let again = ConfigFile::read(&file.path, whose, file.to_string().as_bytes());
        assert_eq!(again.as_ref().map(content), Ok(content(&file)));

        let profiles = file
            .profiles
            .iter()
            .map(|it| format!("--profile={}", it.name));
        let lines = profiles.chain(["--show-config".to_owned(), "--list-profiles".to_owned()]);
        for line in lines {
            let line = CommandLine::read([line.into()]).expect("it is well formed");
            for files in [
                vec![file.clone()],
                vec![file.clone().without_what_is_free()],
            ] {
                if let Err(error) = request(&line, &files) {
                    one_line(&error.to_string());
                }
            }
        }
    }
}
