-- The latest date of the images that a key had before it was deleted, where that was stored less than a minute before:
-- the next image of the key must know whether it is of the same second. Rows are removed after a day.
CREATE TABLE IF NOT EXISTS deleted_dates (
    image_key VARBINARY(255) NOT NULL,
    latest_at DATETIME(6)    NOT NULL COMMENT 'UTC',
    PRIMARY KEY (image_key),
    KEY deleted_dates_latest_at (latest_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
