//! The parts of the system, and whether each is there.

use serde::Serialize;
use utoipa::ToSchema;

/// Whether a part of the system is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Part {
    /// Whether it can be used.
    pub(crate) ok: bool,
    /// In a few words: the fault, or the state of the part.
    pub(crate) message: String,
}

impl Part {
    /// A part that can be used.
    pub(crate) fn there(message: impl Into<String>) -> Self {
        Self { ok: true, message: message.into() }
    }

    /// A part that can't, with the reason.
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self { ok: false, message: message.into() }
    }
}

/// The state of each part of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Parts)]
pub(crate) struct Health {
    /// The bus.
    pub(crate) nats: Part,
    /// The memcache worker.
    pub(crate) memcache: Part,
    /// The stats recorder.
    pub(crate) recorder: Part,
    /// The database and its tables.
    pub(crate) mysql: Part,
    /// The image files, and whether they belong to the database.
    pub(crate) store: Part,
}

impl Health {
    /// The parts with their names, in the order in which they are shown.
    pub(crate) fn parts(&self) -> [(&'static str, &Part); 5] {
        [
            ("nats", &self.nats),
            ("memcache", &self.memcache),
            ("recorder", &self.recorder),
            ("mysql", &self.mysql),
            ("store", &self.store),
        ]
    }

    /// The same, with the bare words `there` and `missing`.
    pub(crate) fn without_messages(self) -> Self {
        let bare = |part: Part| if part.ok { Part::there("there") } else { Part::missing("missing") };
        Self {
            nats: bare(self.nats),
            memcache: bare(self.memcache),
            recorder: bare(self.recorder),
            mysql: bare(self.mysql),
            store: bare(self.store),
        }
    }

    /// Whether all of them can be used.
    pub(crate) fn is_ready(&self) -> bool {
        self.parts().iter().all(|(_, part)| part.ok)
    }
}
