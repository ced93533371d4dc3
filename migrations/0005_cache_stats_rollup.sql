-- The windows of `cache_stats` added up over five minutes, for each life of a worker. A chart of a
-- month is made from 8,640 rows of this table and not from 518,400 windows.
--
-- A row is computed anew from the windows in the transaction that inserts one of them, so it equals
-- their sum at every moment, however late or often a window comes. Counts are sums, gauges the
-- largest value, `sequence` is the last window's.
CREATE TABLE IF NOT EXISTS cache_stats_rollup (
    interval_start     DATETIME(6)     NOT NULL COMMENT 'UTC, a multiple of five minutes',
    worker             VARCHAR(64)     NOT NULL,
    incarnation        VARCHAR(32)     NOT NULL,
    sequence           BIGINT UNSIGNED NOT NULL,
    window_count       BIGINT UNSIGNED NOT NULL,
    interval_ms        BIGINT UNSIGNED NOT NULL,
    cache_size         BIGINT UNSIGNED NOT NULL,
    capacity           BIGINT UNSIGNED NOT NULL,
    key_count          BIGINT UNSIGNED NOT NULL,
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
    PRIMARY KEY (interval_start, worker, incarnation)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
