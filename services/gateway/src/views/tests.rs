#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::HashSet;
use std::time::Duration;

use origin::ImageRow;
use origin::dates::Dates;
use origin::dates::Modified;
use origin::listing::{Order, Page, Place, Position};
use sniff::Format;
use time::macros::datetime;
use time::{OffsetDateTime, UtcOffset};
use wire::inspect::ResidentKey;
use wire::stats::{ConfigRevision, Effect, History, Reads, Series, SeriesRow};
use wire::{CacheConfig, CacheStats, Capacity, ConfigReply, Counters, Key, Policy};

use super::figures::{Figure, stats_figures};
use super::images::file_name;
use super::shell::Moment;
use super::*;
use crate::conditional::Decision;
use crate::health::{Health, Part};
use crate::image::{CacheStatus, Content, ImageMeta, ReadOutcome};

const NOW: OffsetDateTime = datetime!(2026-01-02 10:00:00 UTC);
const MARKUP: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";

fn views() -> Views {
    Views::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates")).unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// 255 bytes in four scripts, without a space to break at.
fn long_key() -> Key {
    let text = "größe/猫の写真/длинный-ключ/مفتاح-طويل/".repeat(4);
    let mut end = 255;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    key(&format!("{}{}", &text[..end], "-".repeat(255 - end)))
}

fn row(key: Key) -> ImageRow {
    ImageRow {
        key,
        location: "ab/cd".into(),
        format: Format::Png,
        size: 791_555,
        width: 512,
        height: 512,
        tag: Tag([7; 32]),
        created_at: NOW - time::Duration::days(2),
        dates: Dates { updated_at: NOW - time::Duration::minutes(5), earlier_at: None },
    }
}

fn resident(key: Key) -> ResidentKey {
    ResidentKey {
        key,
        variant: None,
        bytes: 791_555,
        content_type: "image/png".into(),
        hits: 1,
        age_ms: 61_000,
    }
}

fn read(status: CacheStatus) -> ReadOutcome {
    ReadOutcome {
        image: ImageMeta {
            format: Format::Png,
            tag: Tag([7; 32]),
            modified: Some(Modified { seconds: 1_700_000_000, is_proof: true }),
            size: 791_555,
        },
        content: Content::Fresh,
        decision: Decision::NotModified,
        cache_status: status,
        cache_time: Duration::from_micros(300),
        elapsed: Duration::from_micros(412),
    }
}

fn stats() -> CacheStats {
    CacheStats {
        worker: "memcache-1".into(),
        incarnation: "a1".into(),
        version: "0.1.0".into(),
        uptime_s: 61,
        policy: Policy::Lru,
        revision: 3,
        capacity_bytes: 64 << 20,
        cache_size_bytes: 16 << 20,
        key_count: 7,
        hit_ratio: Some(0.75),
        serving: true,
        pending_window_count: 0,
        lost_window_count: 0,
        slow_consumer_count: 0,
        refused_answer_count: 0,
        connection_count: 1,
        dropped_event_count: 0,
        counters: Counters { request_count: 4, hit_count: 3, miss_count: 1, ..Counters::default() },
    }
}

fn config() -> ConfigReply {
    ConfigReply {
        worker: "memcache-1".into(),
        incarnation: "0123456789abcdef".into(),
        revision: 3,
        config: CacheConfig {
            capacity_mb: Capacity::from_mb(64, 1000).unwrap(),
            policy: Policy::Lru,
            generation: 1,
            changed_by: MARKUP.into(),
            changed_at: NOW,
        },
        capacity_bytes: 64 << 20,
        max_capacity_mb: 1000,
    }
}

fn series(row_count: u64) -> Series {
    let from = NOW - time::Duration::minutes(10);
    let row = |n: u64| SeriesRow {
        interval_start: from + Duration::from_secs(5 * n),
        interval_ms: 5000,
        worker: None,
        incarnation: None,
        sequence: None,
        window_count: 1,
        cache_size: 1 << 20,
        capacity: 64 << 20,
        key_count: 7,
        counters: Counters { request_count: 10, hit_count: 9, miss_count: 1, ..Counters::default() },
    };
    Series { from, to: NOW, step_ms: 5000, rows: (0..row_count).map(row).collect() }
}

fn revision(revision: u64, mb: u64, policy: Policy, generation: u64) -> ConfigRevision {
    ConfigRevision {
        revision,
        max_capacity: mb << 20,
        replacement_policy: policy,
        generation,
        changed_by: MARKUP.into(),
        created_at: NOW,
        effect: Some(Effect { before: Reads { request_count: 8, hit_count: 2 }, after: Reads::default() }),
    }
}

fn history() -> History {
    History { changes: vec![revision(2, 32, Policy::Lru, 1), revision(1, 64, Policy::Lru, 1)] }
}

fn health(ok: bool) -> Health {
    let part = Part { ok, message: MARKUP.into() };
    Health {
        nats: part.clone(),
        memcache: part.clone(),
        recorder: part.clone(),
        mysql: part.clone(),
        store: part,
    }
}

fn cache_page(full: bool) -> CachePage {
    let mut form = CacheForm::new(full.then(config).as_ref());
    form.confirmation = MARKUP.into();
    CachePage {
        done: full.then(|| Done { title: "Done.".into(), text: MARKUP.into() }),
        error: (!full).then(|| FormError {
            form: "delete_all",
            done: false,
            title: "No image was deleted.",
            message: MARKUP.into(),
        }),
        form,
        config: full.then(|| config_view(&config(), NOW)),
        stats: full.then(stats),
        share: 0.25,
        stats_error: (!full).then(|| MARKUP.into()),
        history: if full { changes(&history().changes, NOW) } else { vec![] },
        compared_ms: 600_000,
        history_error: None,
        stored_count: full.then_some(1),
        confirmation_phrase: DELETE_ALL_PHRASE,
        fate: fate(Deleted::Several, 7),
    }
}

/// Every page, as full and as empty as it can be.
fn every_page(views: &Views) -> Vec<(String, String)> {
    let rows = [row(key(MARKUP)), row(long_key()), row(key("../../etc/passwd"))];
    let known = Residency::new(vec![resident(key(MARKUP))]);
    let mut pages = Vec::new();
    for full in [true, false] {
        let shell = Shell::new(Some(Section::Gallery), Some(&health(full)));
        let residency = if full { &known } else { &Residency::default() };
        let images = || -> Vec<ImageView> {
            if full { rows.iter().map(|row| ImageView::new(row, residency, NOW)).collect() } else { vec![] }
        };
        let error = || (!full).then(|| MARKUP.to_owned());
        let series = full.then(|| series(120));
        let unavailable = Error::Unavailable { part: "the recorder", reason: MARKUP.into() };
        let mut add = |name: &str, html: Result<String, Error>| {
            pages.push((format!("{name}, full: {full}"), html.unwrap()))
        };

        for (name, path) in [("home.html", Listing::PICTURES), ("keys.html", Listing::ROWS)] {
            let place = Place::parse(MARKUP, Order::Key).unwrap();
            let position = if full { Position::After(place) } else { Position::First };
            let listing = Listing { path, prefix: MARKUP.into(), order: Order::Key, position };
            let rows = if full { rows.to_vec() } else { vec![] };
            let page = Page { rows, has_previous: full, has_next: full };
            for error in [None, error()] {
                let mut page = ListPage::new(&listing, &page, residency, NOW);
                page.figures =
                    home_figures(series.as_ref(), full.then(stats).as_ref(), full.then_some(3)).unwrap();
                page.done = deleted_notice(Some(MARKUP), None);
                page.stored_count = full.then_some(3);
                page.matching_count = full.then_some(1);
                page.note = Some(MARKUP.into());
                page.error = error;
                add(name, views.page(name, &shell, &page));
            }
        }
        add(
            "delete several",
            views.page(
                "images_delete.html",
                &shell,
                &ChosenPage {
                    images: images(),
                    gone: vec![MARKUP.into()],
                    bytes: 1,
                    back: MARKUP.into(),
                    fate: fate(Deleted::Several, 7),
                },
            ),
        );
        let outcome = |outcome| Outcome { key: MARKUP.into(), outcome, reason: Some(MARKUP.into()) };
        add(
            "deleted in part",
            views.page(
                "images_deleted.html",
                &shell,
                &DeletedPage {
                    deleted: 1,
                    asked: 2,
                    outcomes: vec![outcome("deleted"), outcome("not confirmed"), outcome("failed")],
                    back: MARKUP.into(),
                },
            ),
        );
        add(
            "upload",
            views.page(
                "upload.html",
                &shell,
                &UploadPage {
                    key: MARKUP.into(),
                    error: error(),
                    title: "Nothing was stored.",
                    wrong: (!full).then_some("key"),
                    stored: false,
                    max_bytes: 20 << 20,
                    max_megapixels: 100,
                    base: "http://127.0.0.1:5000".into(),
                    formats: Formats::stored(),
                },
            ),
        );
        add(
            "image form",
            views.page(
                "image_form.html",
                &shell,
                &ImageFormPage { key: MARKUP.into(), error: error(), is_made: false, can_upload: full },
            ),
        );
        for status in CacheStatus::ALL {
            let row = full.then(|| row(key(MARKUP)));
            let page = ImagePage::new(
                &key(MARKUP),
                &read(status),
                row.as_ref(),
                residency,
                None,
                "http://127.0.0.1:5000",
                NOW,
            );
            add("image", views.page("image.html", &shell, &page));
        }
        add(
            "delete",
            views.page(
                "image_delete.html",
                &shell,
                &DeletePage { image: ImageView::new(&rows[0], residency, NOW), fate: fate(Deleted::One, 7) },
            ),
        );
        add("cache", views.page("cache.html", &shell, &cache_page(full)));
        let answer = series.as_ref().ok_or(&unavailable);
        let page = {
            let (history, stats) = (history(), stats());
            let findings = StatsFindings {
                series: answer,
                earlier: series.as_ref(),
                history: full.then_some(&history),
                stats: full.then_some(&stats),
            };
            StatsPage::new("24h".parse().unwrap(), UtcOffset::UTC, findings)
        }
        .unwrap();
        add("stats", views.page("stats.html", &shell, &page));
        add("stats fragment", views.fragment("partials/stats.html", &page));
        add(
            "error",
            views.page(
                "error.html",
                &Shell::new(None, None),
                &ErrorPage { status: 404, title: "Not found", message: MARKUP.into() },
            ),
        );
    }
    pages
}

#[test]
fn every_page_can_be_made_and_markup_in_a_key_stays_text() {
    for (name, html) in every_page(&views()) {
        assert!(!html.contains("alert(1)<") && !html.contains("<img src=x"), "{name}: {html}");
        assert!(!html.contains("\"'><"), "{name}: {html}");
    }
}

/// The content security policy of the pages would refuse inline code.
#[test]
fn nothing_is_inline() {
    for (name, html) in every_page(&views()) {
        assert!(!html.contains(" style="), "{name}");
        assert!(
            html.matches("<script").count() == html.matches("<script defer src=\"/static/").count(),
            "{name}"
        );
        assert!(
            !html.contains("<style") && !html.contains(" onclick") && !html.contains("javascript:"),
            "{name}"
        );
    }
}

#[test]
fn ids_are_unique_in_a_page_and_labels_have_their_fields() {
    for (name, html) in every_page(&views()) {
        let ids: Vec<_> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let distinct: HashSet<_> = ids.iter().collect();
        assert_eq!(ids.len(), distinct.len(), "{name}: {ids:?}");
        for label in html.split("<label for=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(ids.contains(&label), "{name}: {label}");
        }
    }
}

#[test]
fn every_link_to_a_static_file_has_its_version() {
    let views = views();
    for (name, html) in every_page(&views) {
        assert!(html.contains("\"/static/css/pixcache.css?v=") || !html.contains("<head>"), "{name}");
        for link in html.split("\"/static/").skip(1).filter_map(|rest| rest.split(['"', '#']).next()) {
            let (path, version) = link.split_once("?v=").unwrap();
            assert_eq!(views.asset(path).unwrap().unwrap().version, version, "{name}: {link}");
        }
    }
}

#[test]
fn styles_and_scripts_are_small() {
    let views = views();
    let ours = views.loaded.assets.iter().filter(|(path, _)| path.ends_with(".css") || path.ends_with(".js"));
    let sum = ours.map(|(_, asset)| asset.bytes.len()).sum::<usize>();
    println!("styles and scripts: {sum} bytes");
    assert!(sum <= 100_000, "{sum}");
}

/// Under another address the page would load the font twice: once ahead, once for the styles.
#[test]
fn the_styles_name_the_very_font_that_is_loaded_ahead() {
    let views = views();
    let font = views.asset("fonts/inter.woff2").unwrap().unwrap().version;
    let styles = views.asset("css/pixcache.css").unwrap().unwrap().bytes;
    let styles = String::from_utf8(styles.to_vec()).unwrap();
    assert_eq!(styles.matches(&format!("url(\"../fonts/inter.woff2?v={font}\")")).count(), 1);
    assert_eq!(styles.matches("url(").count(), 1);
}

#[test]
fn a_folder_without_templates_is_refused_by_name() {
    let empty = tempfile::tempdir().unwrap();
    let error = Views::load(empty.path()).unwrap_err();
    assert!(format!("{error:#}").contains("TEMPLATE_DIR"), "{error:#}");
    let error = Views::load(&empty.path().join("absent")).unwrap_err();
    assert!(format!("{error:#}").contains("absent"), "{error:#}");
}

#[test]
fn a_malformed_template_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("static")).unwrap();
    std::fs::write(folder.path().join("home.html"), "{% if %}").unwrap();
    assert!(format!("{:#}", Views::load(folder.path()).unwrap_err()).contains("home.html"));
}

#[test]
fn links_survive_any_key() {
    assert_eq!(image_page(&key("a b/ü&=#?%")), "/image?key=a%20b%2F%C3%BC%26%3D%23%3F%25");
    // Plain slashes, but where a browser would fold `..` between them, or a server would drop one of two.
    for (name, path) in [
        ("a b/ü/c.jpg", "a%20b/%C3%BC/c.jpg"),
        ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"),
        ("a/./b", "a%2F.%2Fb"),
        ("a//b", "a%2F%2Fb"),
        ("/a", "%2Fa"),
        ("a/", "a%2F"),
        ("a/..b", "a/..b"),
    ] {
        let source = image_source(&key(name), Tag([0; 32]));
        assert!(source.starts_with(&format!("/images/{path}?v=0000")), "{source}");
    }
    let after = Position::After(Place::parse("7:b c", Order::Largest).unwrap());
    let list = Listing { path: Listing::ROWS, prefix: "a&".into(), order: Order::Largest, position: after };
    assert_eq!(list.address(), "/keys_list?prefix=a%26&sort=largest&after=7%3Ab%20c");
    assert_eq!(list.on(Listing::PICTURES).address(), "/?prefix=a%26&sort=largest&after=7%3Ab%20c");
    assert_eq!(list.unfiltered().by_key().address(), "/keys_list");
    assert_eq!(list.unfiltered().by_key().on(Listing::PICTURES).address(), "/?sort=key");
}

#[test]
fn file_names_are_plain_on_every_disk() {
    for (text, format, name) in [
        ("astronaut.png", Format::Png, "astronaut.png"),
        ("a/b/photo.jpeg", Format::Jpeg, "photo.jpg"),
        ("../../etc/passwd", Format::Webp, "passwd.webp"),
        ("-rf", Format::Gif, "rf.gif"),
        ("'; rm -rf $HOME #", Format::Png, "rm_-rf__HOME.png"),
        ("猫", Format::Png, "image.png"),
        ("a/", Format::Png, "a.png"),
    ] {
        assert_eq!(file_name(&key(text), format), name);
    }
    assert!(file_name(&long_key(), Format::Png).len() < 100);
}

#[test]
fn residency_tells_absent_from_unknown() {
    let asked = Residency::new(vec![resident(key("a"))]);
    assert_eq!(asked.of(&key("a")).flatten().map(|entry| entry.hits), Some(1));
    assert_eq!(asked.of(&key("b")), Some(None));
    assert_eq!(Residency::default().of(&key("a")), None);
}

#[test]
fn changes_are_told_against_the_revision_before() {
    let revisions = [
        revision(5, 32, Policy::ClockPro, 2),
        revision(4, 32, Policy::Lru, 2),
        revision(3, 32, Policy::Lru, 1),
        revision(2, 64, Policy::Lru, 1),
        revision(1, 64, Policy::Lru, 1),
    ];
    let words: Vec<_> =
        changes(&revisions, NOW).into_iter().map(|change| change.what.replace('\u{a0}', " ")).collect();
    assert_eq!(
        words,
        ["policy lru → clock_pro", "cleared", "capacity 64 MB → 32 MB", "set again, unchanged", "64 MB, lru"]
    );
}

#[test]
fn figures_fall_back_on_what_is_known() {
    let value =
        |figures: Vec<Figure>| -> Vec<String> { figures.into_iter().map(|figure| figure.value).collect() };
    assert_eq!(
        value(home_figures(Some(&series(120)), Some(&stats()), Some(9)).unwrap()),
        ["90.0", "2", "7", "16"]
    );
    assert_eq!(value(home_figures(None, Some(&stats()), Some(9)).unwrap()), ["75.0", "–", "7", "16"]);
    assert_eq!(value(home_figures(Some(&series(120)), None, None).unwrap()), ["90.0", "2", "7", "1"]);
    assert_eq!(value(home_figures(None, None, None).unwrap()), ["–", "–", "–", "–"]);
    assert_eq!(value(stats_figures(&series(0), None, None).unwrap())[..2], ["–", "0"]);
}

#[test]
fn without_the_bus_there_is_one_notice() {
    let mut health = health(true);
    assert_eq!(Shell::new(None, Some(&health)).notices.len(), 0);
    health.recorder.ok = false;
    assert_eq!(Shell::new(None, Some(&health)).notices.len(), 1);
    health.nats.ok = false;
    health.memcache.ok = false;
    let shell = Shell::new(None, Some(&health));
    assert_eq!(shell.notices.iter().map(|part| part.label).collect::<Vec<_>>(), ["NATS"]);
    assert!(!shell.ready);
}

#[test]
fn what_is_hidden_in_a_key_is_shown_and_links_keep_it() {
    let hidden = key("a\u{202e}b");
    let page = ImagePage::new(
        &hidden,
        &read(CacheStatus::Hit),
        None,
        &Residency::default(),
        None,
        "http://127.0.0.1:5000",
        NOW,
    );
    let html = views().page("image.html", &Shell::new(Some(Section::Gallery), None), &page).unwrap();
    assert!(html.contains("<h1 class=\"key\">a‹U+202E›b</h1>"), "{html}");
    assert!(html.contains("a%E2%80%AEb?v="), "{html}");
    // The form that names it sends it as it is.
    assert_eq!(html.matches('\u{202e}').count(), html.matches("value=\"a\u{202e}b\"").count(), "{html}");
}

#[test]
fn moments_are_told_in_words() {
    let moment = |at| Moment::new(at, NOW);
    assert_eq!(moment(NOW).ago, "just now");
    assert_eq!(moment(NOW + time::Duration::milliseconds(900)).ago, "just now");
    assert_eq!(moment(NOW - time::Duration::milliseconds(900)).ago, "just now");
    // A moment ahead of the clock is neither now nor still to come: a key that is written often is dated ahead.
    for (ahead, said) in [(1, "dated 1 s ahead"), (5, "dated 5 s ahead"), (3600, "dated 1 h ahead")] {
        let at = NOW + time::Duration::seconds(ahead);
        assert_eq!(moment(at).ago.replace('\u{a0}', " "), said);
    }
    let moment = moment(datetime!(2026-01-01 23:59:00 -01:00));
    assert_eq!(
        (moment.iso.as_str(), moment.text.as_str()),
        ("2026-01-02T00:59:00Z", "2 Jan 2026, 00:59 UTC")
    );
    assert_eq!(moment.ago.replace('\u{a0}', " "), "9 h ago");
}

#[test]
fn the_fate_of_the_files_of_deleted_images_is_told_as_it_is() {
    let seven = "Its file stays in the folder trash/ of the image store for 7 days.";
    assert_eq!(fate(Deleted::One, 7).replace('\u{a0}', " "), seven);
    let one = "Their files stay in the folder trash/ of the image store for 1 day.";
    assert_eq!(fate(Deleted::Several, 1).replace('\u{a0}', " "), one);
    assert_eq!(fate(Deleted::One, 0), "Its file is removed at once, and it can’t be brought back.");
    let shell = Shell::new(Some(Section::Gallery), None);
    let image = || ImageView::new(&row(key("cat")), &Residency::default(), NOW);
    let (views, fate) = (views(), || fate(Deleted::One, 7));
    let one = views.page("image_delete.html", &shell, &DeletePage { image: image(), fate: fate() }).unwrap();
    let chosen = ChosenPage { images: vec![image()], gone: vec![], bytes: 1, back: "/".into(), fate: fate() };
    let several = views.page("images_delete.html", &shell, &chosen).unwrap();
    let all = views.page("cache.html", &shell, &cache_page(true)).unwrap();
    for page in [one, several, all] {
        let page = page.replace("&#x2f;", "/").replace('\u{a0}', " ");
        assert!(page.contains("in the folder trash/ of the image store for 7 days."), "{page}");
        assert!(!page.contains("for good"), "{page}");
    }
}

#[test]
fn a_deletion_that_the_cache_has_not_acknowledged_is_no_failed_one() {
    let shell = Shell::new(Some(Section::Keys), None);
    let outcome = |outcome| Outcome { key: "cat".into(), outcome, reason: None };
    let page = |deleted, outcomes| {
        let page = DeletedPage { deleted, asked: 2, outcomes, back: "/".into() };
        views().page("images_deleted.html", &shell, &page).unwrap()
    };
    let all = page(2, vec![outcome("deleted"), outcome("not confirmed")]);
    assert!(all.contains("All are deleted, but not all is confirmed."), "{all}");
    assert!(!all.contains(">failed<") && !all.contains("notice-error"), "{all}");
    let some = page(1, vec![outcome("not confirmed"), outcome("failed")]);
    assert!(some.contains("Not all could be deleted.") && some.contains("notice-error"), "{some}");
    let form = |is_made| {
        let error = Some("The image is deleted, but not yet confirmed.".to_owned());
        let page = ImageFormPage { key: "cat".into(), error, is_made, can_upload: false };
        views().page("image_form.html", &shell, &page).unwrap()
    };
    assert!(form(true).contains("notice-warning") && !form(true).contains("notice-error"));
    assert!(form(false).contains("notice-error"));
}

#[test]
fn a_banner_says_no_more_than_is_true_without_the_worker() {
    let missing = Part { ok: false, message: String::new() };
    let shell = Shell::new(None, Some(&Health { memcache: missing, ..health(true) }));
    let page = ErrorPage { status: 404, title: "Not found", message: String::new() };
    let html = views().page("error.html", &shell, &page).unwrap();
    assert!(!html.contains("can be stored and deleted without"), "{html}");
    assert!(html.contains("can be answered with an error although it is made"), "{html}");
}

#[test]
fn figures_are_unknown_without_an_answer_and_not_zero() {
    let note = |series: Option<&Series>, stats: Option<&CacheStats>| {
        let figures = home_figures(series, stats, None).unwrap();
        serde_json::to_value(&figures[0]).unwrap()["note"].as_str().unwrap().replace('\u{a0}', " ")
    };
    let quiet = Series { rows: vec![], ..series(0) };
    let fresh = CacheStats { hit_ratio: None, ..stats() };
    assert_eq!(note(None, None), "unknown now");
    assert_eq!(note(Some(&quiet), None), "no reads in 10 min");
    assert_eq!(note(None, Some(&fresh)), "no reads yet");
}
