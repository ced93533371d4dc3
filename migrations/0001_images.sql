-- One row for each stored image: what the gateway knows to be true. The bytes lie in the file, or
-- the object, that `location` names, under a new name for each upload; the row decides which of
-- them is the image, so a key changes from one whole image to another in one transaction.
--
-- The key is VARBINARY because keys are compared byte for byte: every text collation would either
-- fold case and accents or pad with spaces. 255 bytes are the longest key.
CREATE TABLE IF NOT EXISTS images (
    image_key    VARBINARY(255)  NOT NULL,
    location     VARCHAR(255)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    content_type VARCHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    size         BIGINT UNSIGNED NOT NULL COMMENT 'bytes',
    width        INT UNSIGNED    NOT NULL COMMENT 'pixels',
    height       INT UNSIGNED    NOT NULL COMMENT 'pixels',
    sha256       BINARY(32)      NOT NULL,
    created_at   DATETIME(6)     NOT NULL COMMENT 'UTC',
    updated_at   DATETIME(6)     NOT NULL COMMENT 'UTC',
    PRIMARY KEY (image_key),
    UNIQUE KEY images_location (location),
    KEY images_updated_at (updated_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
