//! What `--show-config` and `--list-profiles` print.

use super::file::{ConfigFile, Whose};
use super::layers::{Layers, names};
use super::settings::Setting;
use super::table::{Place, TABLE};

/// The profiles, a line each: name and description. The last description counts.
pub(super) fn profiles(files: &[ConfigFile]) -> String {
    let names = names(files);
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let line = |name: &&str| {
        let sections = files.iter().filter_map(|file| file.profile(name));
        let settings = sections.flat_map(|profile| profile.settings.of("description"));
        let description = settings.last().map_or("", |setting| &setting.value);
        format!("{name:width$}  {description}")
            .trim_end()
            .to_owned()
            + "\n"
    };
    names.iter().map(line).collect()
}

/// The files that were read, then every value in force, a line each, behind where it was said.
pub(super) fn in_force(layers: &Layers<'_>) -> String {
    let mut text = String::new();
    for file in layers.files {
        let whose = match file.whose {
            Whose::Site => "the site's file",
            Whose::User => "a user's file",
        };
        text += &format!("# {whose}: {}\n", file.path.display());
    }
    if layers.files.is_empty() {
        text += "# no configuration file\n";
    }
    let mut lines: Vec<(String, String)> = Vec::new();
    for spec in TABLE.iter() {
        if [Place::CommandLine, Place::Profile].contains(&spec.place) {
            continue;
        }
        let settings: Vec<&Setting> = layers.settings.of(spec.long).collect();
        let hidden = if spec.repeatable {
            0
        } else {
            settings.len().saturating_sub(1)
        };
        let lock = if layers.lock(spec.long).is_some() {
            " (locked)"
        } else {
            ""
        };
        for setting in &settings[hidden..] {
            lines.push((
                format!("{}{lock}", setting.origin),
                format!("{} = {}", setting.name, setting.value),
            ));
        }
    }
    let width = lines.iter().map(|(origin, _)| origin.chars().count()).max();
    let width = width.unwrap_or(0);
    let print = |(origin, value): (String, String)| format!("{origin:width$}  {value}\n");
    text.extend(lines.into_iter().map(print));
    text
}
