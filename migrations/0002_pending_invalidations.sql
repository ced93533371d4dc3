-- Keys whose row has changed but of which the cache may not know yet. A row is written in the
-- transaction that changes the image and removed once the worker has acknowledged the
-- invalidation, so that any gateway can finish what another began before it died. The empty key
-- stands for every key. Empty in peace.
--
-- The token is drawn anew for each change: an acknowledgement removes the row only with the token
-- that it was sent for, and never the note of a later change.
CREATE TABLE IF NOT EXISTS pending_invalidations (
    image_key VARBINARY(255)  NOT NULL,
    token     BIGINT UNSIGNED NOT NULL,
    noted_at  DATETIME(6)     NOT NULL COMMENT 'UTC',
    PRIMARY KEY (image_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
