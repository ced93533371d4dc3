//! The page of the system's parts: which there are, since when, and which are degraded.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use time::OffsetDateTime;
use wire::stats::SeriesRequest;

use super::render::logged;
use crate::service::state::AppState;
use crate::views::{Section, Shell, SystemFindings, SystemPage};

pub(super) async fn system(State(state): State<AppState>) -> Response {
    let made = async {
        // All at once, so that the page takes as long as the slowest of them, which has a limit.
        let lately = SeriesRequest::default();
        let (health, services, stats, backlog, series, pending, database) = tokio::join!(
            state.health(),
            state.cache.services(),
            state.cache.stats(),
            state.cache.backlog(),
            state.history_for_page(state.cache.series(&lately)),
            state.for_page(state.pending_count()),
            state.for_page(state.images.server()),
        );
        let server = state.cache.bus().client().server_info();
        let findings = SystemFindings {
            health: &health,
            services,
            stats: logged(stats),
            backlog: logged(backlog),
            series: logged(series),
            pending_count: logged(pending),
            database: logged(database),
            nats_version: server.version,
            nats_connections: state.cache.bus().connection_count(),
            nats_since: state.cache.bus().since(),
            swept: state.swept(),
            store: if state.blobs.is_folder() { "Folder" } else { "S3" },
            version: env!("CARGO_PKG_VERSION"),
        };
        let page = SystemPage::new(findings, OffsetDateTime::now_utc());
        let shell = Shell::new(Some(Section::System), Some(&health));
        state.render(StatusCode::OK, "system.html", &shell, &page)
    };
    state.answer(made.await)
}
