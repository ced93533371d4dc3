//! Conditions by date: never one image for another, and never a date that is not there yet.

use std::time::Duration;

use testkit::{eventually, samples};
use time::format_description::well_known::Rfc2822;
use time::{OffsetDateTime, UtcOffset};
use wire::{Meta, subject};

use crate::helpers::{Gateway, PATIENCE, Scene, WITHOUT_COPIES, key};
use crate::http::Answer;

/// An image of a size of its own for each number, so that parts of two can't be taken for one.
fn numbered(number: u8) -> Vec<u8> {
    let mut bytes = samples::chelsea().bytes.to_vec();
    bytes.extend(std::iter::repeat_n(number, usize::from(number)));
    bytes
}

fn seconds(date: &str) -> i64 {
    OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).unwrap().unix_timestamp()
}

fn date(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).format(&Rfc2822).unwrap().replace("+0000", "GMT")
}

/// Waits until the second of `date` lies two behind.
async fn old_enough(date: &str) {
    let end = seconds(date) + 2;
    eventually("the date is two seconds old", PATIENCE, async || {
        OffsetDateTime::now_utc().unix_timestamp() >= end
    })
    .await;
}

/// Waits for the beginning of a second, so that what follows is done within it.
async fn a_new_second() {
    let now = OffsetDateTime::now_utc();
    tokio::time::sleep(Duration::from_nanos(1_000_000_000 - u64::from(now.nanosecond()))).await;
}

async fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.send("GET", path, headers, b"").await
}

/// Asks in each way that could be answered with something of another image, if `date` were taken for a proof.
async fn is_not_taken_for(gateway: &Gateway, path: &str, date: &str, image: &[u8]) {
    let whole = ask(gateway, path, &[("If-Modified-Since", date)]).await;
    assert_eq!(whole.status, 200, "{path} since {date}: {}", whole.cache());
    let rest = ask(gateway, path, &[("If-Range", date), ("Range", "bytes=100-")]).await;
    assert_eq!(rest.status, 200, "{path}, the rest of {date}: {}", rest.cache());
    if !path.contains('?') {
        assert!(whole.body == image && rest.body == image);
    }
    for method in ["GET", "HEAD"] {
        let answer = gateway.send(method, path, &[("If-Unmodified-Since", date)], b"").await;
        assert_eq!(answer.status, 412, "{method} {path} unless {date}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_is_never_taken_for_another_image_s_however_it_came_to_be_there() {
    let (scene, _worker, near) = Scene::running().await;
    let far = scene.start_gateway(&WITHOUT_COPIES).await;
    let last = numbered(9);
    // Each ends with an image that was stored in the same second as the one whose date is held.
    for (name, then_delete) in [("replaced", 0), ("deleted", 1), ("all", 2)] {
        let path = format!("/images/{name}");
        let held = loop {
            a_new_second().await;
            assert!([200, 201].contains(&near.put(&path, &numbered(1)).await.status));
            let held = near.get(&path).await.header("last-modified").to_owned();
            near.put(&path, &numbered(2)).await;
            match then_delete {
                0 => {}
                1 => assert_eq!(far.delete(&path).await.status, 204),
                _ => assert_eq!(far.post("/api/delete_all").await.status, 200),
            }
            let stored = near.put(&path, &last).await;
            let at = stored.json()["updated_at"].as_str().unwrap().to_owned();
            let at = OffsetDateTime::parse(&at, &time::format_description::well_known::Rfc3339).unwrap();
            if at.unix_timestamp() == seconds(&held) {
                break held;
            }
            near.delete(&path).await;
        };
        old_enough(&held).await;
        for (gateway, status) in [(&near, "hit; detail=near"), (&far, "hit")] {
            eventually("it is a hit", PATIENCE, async || gateway.get(&path).await.cache() == status).await;
            is_not_taken_for(gateway, &path, &held, &last).await;
        }
        let variant = format!("{path}?w=160");
        for gateway in [&near, &far] {
            for _ in 0..2 {
                is_not_taken_for(gateway, &variant, &held, &last).await;
            }
        }
        scene.configure(r#"{"policy":"none"}"#).await;
        is_not_taken_for(&far, &path, &held, &last).await;
        scene.configure(r#"{"policy":"lru"}"#).await;
        // Nor does anybody overwrite or delete by it what they have not seen.
        let condition = [("If-Unmodified-Since", &*held)];
        assert_eq!(near.send("PUT", &path, &condition, &numbered(5)).await.failure(), 412);
        assert_eq!(near.send("DELETE", &path, &condition, b"").await.failure(), 412);
        assert!(near.get(&path).await.body == last);
    }
    near.stop().await.unwrap();
    far.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_holds_for_its_image_and_what_it_saves_once_it_is_two_seconds_old() {
    let (scene, _worker, gateway) = Scene::running().await;
    a_new_second().await;
    gateway.put("/images/cat", &numbered(1)).await;
    let held = gateway.get("/images/cat").await.header("last-modified").to_owned();
    let since = [("If-Modified-Since", &*held)];
    assert_eq!(ask(&gateway, "/images/cat", &since).await.status, 200, "it is too young");
    // Whoever only insists on it need not wait.
    assert_eq!(ask(&gateway, "/images/cat", &[("If-Unmodified-Since", &*held)]).await.status, 200);
    old_enough(&held).await;
    for policy in [r#"{"policy":"lru"}"#, r#"{"policy":"none"}"#] {
        scene.configure(policy).await;
        for path in ["/images/cat", "/images/cat?w=160"] {
            for _ in 0..2 {
                assert_eq!(ask(&gateway, path, &since).await.status, 304, "{path} {policy}");
                let rest = ask(&gateway, path, &[("If-Range", &*held), ("Range", "bytes=100-")]).await;
                assert_eq!(rest.status, 206, "{path} {policy}");
            }
        }
        let tag = ("If-None-Match", "\"another\"");
        assert_eq!(ask(&gateway, "/images/cat", &[since[0], tag]).await.status, 200, "a tag decides");
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_was_just_received_is_good_for_one_change_and_for_no_second_one() {
    let (_scene, _worker, gateway) = Scene::running().await;
    a_new_second().await;
    gateway.put("/images/cat", &numbered(1)).await;
    let held = gateway.get("/images/cat").await.header("last-modified").to_owned();
    let condition = [("If-Unmodified-Since", &*held)];
    let replaced = gateway.send("PUT", "/images/cat", &condition, &numbered(2)).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text());
    assert_eq!(gateway.send("PUT", "/images/cat", &condition, &numbered(3)).await.failure(), 412);
    assert_eq!(gateway.send("DELETE", "/images/cat", &condition, b"").await.failure(), 412);
    let tag = replaced.header("etag");
    let both = [condition[0], ("If-Match", tag)];
    assert_eq!(gateway.send("DELETE", "/images/cat", &both, b"").await.status, 204, "a tag decides");
    // That it is gone is a change too.
    assert_eq!(gateway.send("PUT", "/images/cat", &condition, &numbered(3)).await.failure(), 412);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_date_runs_ahead_of_the_clock() {
    let (scene, _worker, gateway) = Scene::running().await;
    for number in 0..20 {
        let stored = gateway.put("/images/cat", &numbered(number)).await;
        let at = stored.json()["updated_at"].as_str().unwrap().to_owned();
        let at = OffsetDateTime::parse(&at, &time::format_description::well_known::Rfc3339).unwrap();
        assert!(at <= OffsetDateTime::now_utc(), "{at} is in the future");
        let answer = gateway.get("/images/cat").await;
        assert!(seconds(answer.header("last-modified")) <= seconds(answer.header("date")));
    }
    // As an older version has left it.
    sqlx::query("UPDATE images SET updated_at = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR")
        .execute(&scene.pool)
        .await
        .unwrap();
    scene.configure(r#"{"policy":"none"}"#).await;
    let answer = gateway.get("/images/cat").await;
    let said = answer.header("last-modified").to_owned();
    assert_eq!(said, answer.header("date"));
    assert!(seconds(&said) <= OffsetDateTime::now_utc().unix_timestamp());
    is_not_taken_for(&gateway, "/images/cat", &said, &answer.body).await;
    let own: OffsetDateTime =
        sqlx::query_scalar("SELECT updated_at FROM images").fetch_one(&scene.pool).await.unwrap();
    let own = date(own);
    assert_eq!(ask(&gateway, "/images/cat", &[("If-Modified-Since", &own)]).await.status, 200);
    assert!(!gateway.get("/image?key=cat").await.text().contains("just now"));
    // What comes next has its own time, which proves nothing as long as the other's has not passed.
    let stored = gateway.put("/images/cat", &numbered(30)).await;
    assert_eq!(stored.status, 200);
    let answer = gateway.get("/images/cat").await;
    let said = answer.header("last-modified").to_owned();
    assert!(seconds(&said) <= seconds(answer.header("date")));
    old_enough(&said).await;
    is_not_taken_for(&gateway, "/images/cat", &said, &numbered(30)).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_of_deleted_images_are_kept_while_they_matter_and_no_longer() {
    let (scene, _worker, gateway) = Scene::running().await;
    let left = async || -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM deleted_dates").fetch_one(&scene.pool).await.unwrap()
    };
    for name in ["young", "old"] {
        gateway.put(&format!("/images/{name}"), &numbered(1)).await;
    }
    sqlx::query(
        "UPDATE images SET updated_at = UTC_TIMESTAMP(6) - INTERVAL 2 MINUTE WHERE image_key = 'old'",
    )
    .execute(&scene.pool)
    .await
    .unwrap();
    for name in ["young", "old"] {
        assert_eq!(gateway.delete(&format!("/images/{name}")).await.status, 204);
    }
    assert_eq!(left().await, 1);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_put_into_the_cache_has_no_date() {
    let (scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", &numbered(1)).await;
    let claimed = Meta { modified_s: Some(1_700_000_000), ..Meta::default() };
    let subject = subject::put(&key("cat").into());
    scene.asker.request(subject, Some(&claimed), numbered(2).into(), PATIENCE).await.unwrap();
    let answer = gateway.get("/images/cat").await;
    assert!(answer.is_hit() && answer.body == numbered(2));
    assert_eq!(answer.header("last-modified"), "");
    is_not_taken_for(&gateway, "/images/cat", "Tue, 14 Nov 2023 22:13:20 GMT", &numbered(2)).await;
    assert_eq!(gateway.get("/image?key=cat").await.status, 200);
    gateway.stop().await.unwrap();
}
