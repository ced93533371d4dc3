//! `gateway adopt`: joins a store and a database that do not belong together, after it has said what that means.

use std::io::{BufRead, IsTerminal as _, Write};

use anyhow::Context as _;
use clap::Parser;

use crate::census::{self, Census};
use crate::id::OriginId;
use crate::identity::{Identity, Ids, Standing};
use crate::images::Images;
use crate::open::{self, OriginArgs};

/// The word that confirms the joining when it is typed.
const WORD: &str = "adopt";

/// Joins an image store and a database that do not belong together. It first says what it finds in both and what
/// will become of it, and does nothing without --yes or "adopt" typed.
#[derive(Debug, Clone, Parser)]
#[command(name = "gateway adopt", version)]
pub struct AdoptConfig {
    /// Store and database.
    #[command(flatten)]
    pub origin: OriginArgs,

    /// Does it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Describes the store and the database and, if that is confirmed, joins them.
///
/// # Errors
/// When one of the two can't be read or written, or the joining is not confirmed.
pub async fn run(config: AdoptConfig, mut output: impl Write) -> anyhow::Result<()> {
    let blobs = open::files(&config.origin).await?;
    let database = open::database(&config.origin, 4)?;
    let images = Images::new(database.clone());
    images.probe().await.context("the database, with the tables that the recorder makes, can't be read")?;
    let identity = Identity::new(database.clone(), images.clone(), blobs.clone());
    let ids = identity.ids().await?;
    let census = census::take(&images, &blobs).await?;
    writeln!(output, "{}", describe(&blobs.describe(), ids, &census))?;
    if let Some(id) = joined(ids) {
        writeln!(output, "They belong together already ({id}): nothing was changed.")?;
        return Ok(());
    }
    writeln!(output, "{}", consequences(&census))?;
    if !config.yes && !asked(&mut output)? {
        anyhow::bail!("nothing was changed: to join them, type \"{WORD}\" or add --yes");
    }
    let id = identity.adopt().await?;
    let standing = identity.settle().await?;
    anyhow::ensure!(
        standing == Standing::Joined(id),
        "another program changed one of the ids at the same time"
    );
    writeln!(output, "Done: both have the id {id}. Gateways that use both go on within seconds.")?;
    database.close().await;
    Ok(())
}

fn joined(ids: Ids) -> Option<OriginId> {
    ids.store.filter(|id| ids.database == Some(*id))
}

fn describe(store: &str, ids: Ids, census: &Census) -> String {
    let id = |id: Option<OriginId>| id.map_or("none".to_owned(), |id| id.to_string());
    let rows = [
        ("image store", store.to_owned()),
        (
            "id of the image store",
            if ids.store_is_unreadable { "unreadable".to_owned() } else { id(ids.store) },
        ),
        ("id of the database", id(ids.database)),
        ("files", census.files.to_string()),
        ("rows", census.rows.to_string()),
        ("files that no row names", census.files_without_row.to_string()),
        ("rows whose file is missing", census.rows_without_file.to_string()),
        ("files in the trash", census.trashed.to_string()),
        ("of those, named by a row", census.wanted.len().to_string()),
    ];
    rows.map(|(name, value)| format!("{name:28}{value}")).join("\n")
}

fn consequences(census: &Census) -> String {
    format!(
        "Joining them gives both a new id. A gateway that has only one of the two can't change anything from then \
         on. The {} files that no row names are swept into the trash, unless they are more than SWEEP_MAX_PERCENT \
         of all; the {} images whose file is missing stay in the list and can't be read until it is back. The cache \
         is cleared.",
        census.files_without_row, census.rows_without_file
    )
}

fn asked(output: &mut impl Write) -> anyhow::Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Ok(false);
    }
    write!(output, "Type \"{WORD}\" to join them: ")?;
    output.flush()?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(line.trim() == WORD)
}
