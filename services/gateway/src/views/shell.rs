//! The frame around the content of every page, and small parts that several pages share.

use charts::units;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use crate::health::{Health, Part};

/// The frame that every page has around its content.
#[derive(Debug, Serialize)]
pub(crate) struct Shell {
    nav: Vec<NavEntry>,
    pub(super) ready: bool,
    summary: &'static str,
    parts: Vec<PartView>,
    pub(super) notices: Vec<PartView>,
}

#[derive(Debug, Serialize)]
struct NavEntry {
    href: &'static str,
    label: &'static str,
    icon: &'static str,
    current: bool,
}

/// A part of the system, and the consequence if it is not there.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PartView {
    pub(super) label: &'static str,
    ok: bool,
    message: String,
    meaning: &'static str,
}

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// `/`
    Gallery,
    /// `/upload_image`
    Upload,
    /// `/image`
    LookUp,
    /// `/keys_list`
    Keys,
    /// `/cache_properties`
    Cache,
    /// `/cache_stats`
    Stats,
    /// `/live`
    Live,
    /// `/system`
    System,
}

impl Section {
    const ALL: [(Self, &'static str, &'static str, &'static str); 8] = [
        (Self::Gallery, "/", "Gallery", "gallery"),
        (Self::Upload, "/upload_image", "Upload", "upload"),
        (Self::LookUp, "/image", "Look up", "search"),
        (Self::Keys, "/keys_list", "Keys", "keys"),
        (Self::Cache, "/cache_properties", "Cache", "cache"),
        (Self::Stats, "/cache_stats", "Stats", "stats"),
        (Self::Live, "/live", "Live", "live"),
        (Self::System, "/system", "System", "system"),
    ];
}

impl Shell {
    /// The frame of a page of this section. Without a section, no entry of the navigation is marked. Without `health`,
    /// the frame says nothing of the system.
    pub(crate) fn new(section: Option<Section>, health: Option<&Health>) -> Self {
        let nav = Section::ALL.into_iter().map(|(entry, href, label, icon)| NavEntry {
            href,
            label,
            icon,
            current: section == Some(entry),
        });
        let parts: Vec<PartView> = health.map(part_views).unwrap_or_default();
        let down = parts.iter().filter(|part| !part.ok).count();
        let summary = match down {
            0 => "All parts are up",
            1 => "One part is down",
            _ => "Several parts are down",
        };
        // Without the bus no part behind it can answer, so one notice is enough.
        let bus_is_down = health.is_some_and(|health| !health.nats.ok);
        let behind_the_bus = |part: &PartView| ["Cache worker", "Recorder"].contains(&part.label);
        let notices = parts.iter().filter(|part| !part.ok);
        let notices = notices.filter(|part| !bus_is_down || !behind_the_bus(part)).cloned().collect();
        Self { nav: nav.collect(), ready: down == 0, summary, parts, notices }
    }
}

fn part_views(health: &Health) -> Vec<PartView> {
    let view = |(name, part): (&str, &Part)| {
        let (label, meaning) = match name {
            "nats" => (
                "NATS",
                "Every read comes from the origin: slower, never an error. An upload or deletion is made, takes \
                 5\u{a0}s and is answered with an error, because the cache can’t be told of it. Settings and \
                 statistics can’t be read or changed.",
            ),
            "memcache" => (
                "Cache worker",
                "Every read comes from the origin: slower, never an error. An upload or deletion takes up to 5\u{a0}s \
                 until the claim of the last worker has run out, and can be answered with an error although it is \
                 made. The cache’s settings can’t be changed.",
            ),
            "recorder" => (
                "Recorder",
                "Charts and history can’t be shown now. Images are not affected. Windows that the cache counts \
                 meanwhile are kept and recorded later.",
            ),
            "mysql" => (
                "Database",
                "Cached images are still served. Others can’t be read, and no image can be stored, listed or deleted.",
            ),
            _ => (
                "Image store",
                "Cached images are still served, and others as far as their files can be read. No image can be \
                 stored until this is mended.",
            ),
        };
        PartView { label, ok: part.ok, message: part.message.clone(), meaning }
    };
    health.parts().into_iter().map(view).collect()
}

/// A moment as templates write it: in UTC, until the viewer's browser converts it to its own zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Moment {
    pub(super) iso: String,
    pub(super) text: String,
    pub(super) ago: String,
}

impl Moment {
    /// The moment `at`, seen from `now`.
    pub(super) fn new(at: OffsetDateTime, now: OffsetDateTime) -> Self {
        let at = at.to_offset(UtcOffset::UTC);
        let words = format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute] UTC");
        let past_ms = (now - at).whole_milliseconds();
        let length = units::duration(u64::try_from(past_ms.unsigned_abs()).unwrap_or(u64::MAX));
        Self {
            iso: at.format(&Rfc3339).unwrap_or_default(),
            text: at.format(words).unwrap_or_default(),
            ago: match past_ms {
                -999..1_000 => "just now".to_owned(),
                1_000.. => format!("{length} ago"),
                // A key that is written often is dated ahead, so that no two images have the same date; and clocks
                // differ.
                _ => format!("dated {length} ahead"),
            },
        }
    }
}

/// A notice about an action that was just done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// The action that was done.
    pub(crate) title: String,
    /// The consequence of the action.
    pub(crate) text: String,
}
