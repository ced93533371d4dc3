-- One row for each window: what a worker counted in one interval, and its gauges at the end of it.
--
-- (worker, incarnation, sequence) names a window; as a unique key it makes a message that comes
-- twice harmless. The primary key begins with the time, because InnoDB stores rows in its order:
-- new rows go to the end, a range of time is read from neighbouring pages, and old rows leave from
-- the front.
CREATE TABLE IF NOT EXISTS cache_stats (
    worker             VARCHAR(64)     NOT NULL,
    incarnation        VARCHAR(32)     NOT NULL COMMENT 'one life of the worker',
    sequence           BIGINT UNSIGNED NOT NULL COMMENT '1, 2, 3 within the incarnation',
    interval_start     DATETIME(6)     NOT NULL COMMENT 'UTC',
    interval_ms        BIGINT UNSIGNED NOT NULL,
    cache_size         BIGINT UNSIGNED NOT NULL COMMENT 'bytes, at the end',
    capacity           BIGINT UNSIGNED NOT NULL COMMENT 'bytes, at the end',
    key_count          BIGINT UNSIGNED NOT NULL COMMENT 'at the end',
    request_count      BIGINT UNSIGNED NOT NULL,
    hit_count          BIGINT UNSIGNED NOT NULL,
    miss_count         BIGINT UNSIGNED NOT NULL,
    fill_count         BIGINT UNSIGNED NOT NULL,
    refused_fill_count BIGINT UNSIGNED NOT NULL,
    put_count          BIGINT UNSIGNED NOT NULL,
    eviction_count     BIGINT UNSIGNED NOT NULL,
    evicted_bytes      BIGINT UNSIGNED NOT NULL,
    invalidation_count BIGINT UNSIGNED NOT NULL,
    rejection_count    BIGINT UNSIGNED NOT NULL,
    served_bytes       BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (interval_start, worker, incarnation, sequence),
    UNIQUE KEY cache_stats_window (worker, incarnation, sequence)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
