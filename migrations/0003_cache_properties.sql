-- The history of the cache's configuration: one row for each revision of the entry in the KV
-- bucket, which is what is in force.
--
-- A bucket that was lost and made anew counts its revisions from 1 again, so a revision is only
-- unique together with the time at which its bucket was created. The newest change is the last row
-- by the primary key.
CREATE TABLE IF NOT EXISTS cache_properties (
    bucket_created_at  DATETIME(6)     NOT NULL COMMENT 'UTC',
    revision           BIGINT UNSIGNED NOT NULL,
    max_capacity       BIGINT UNSIGNED NOT NULL COMMENT 'bytes',
    replacement_policy VARCHAR(16)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    generation         BIGINT UNSIGNED NOT NULL COMMENT 'goes up by one with each clear',
    changed_by         VARCHAR(255)    NOT NULL,
    created_at         DATETIME(6)     NOT NULL COMMENT 'UTC, when the change was made',
    PRIMARY KEY (bucket_created_at, revision)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
