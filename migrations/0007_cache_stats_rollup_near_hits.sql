-- Hits that gateways served from their near caches; `hit_count` and `request_count` contain them.
-- MySQL knows no ADD COLUMN IF NOT EXISTS, and a start that died behind the change must not fail the next one.
SET @change = IF(
    EXISTS (SELECT 1 FROM information_schema.COLUMNS
            WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'cache_stats_rollup' AND COLUMN_NAME = 'near_hit_count'),
    'DO 0',
    'ALTER TABLE cache_stats_rollup ADD COLUMN near_hit_count BIGINT UNSIGNED NOT NULL DEFAULT 0 AFTER served_bytes');
PREPARE change_of_table FROM @change;
EXECUTE change_of_table;
DEALLOCATE PREPARE change_of_table;
