-- Which installation this database is of: the same id as in the file `pixcache-id` of the image store. A gateway that
-- finds two ids, or one, changes nothing, because the files that this database knows are elsewhere.
--
-- One row. It is unconfirmed until the gateway has seen the id in the store, so that a first start that broke off in
-- between goes on, and is not taken for a store that was lost.
CREATE TABLE IF NOT EXISTS origin_identity (
    one       TINYINT UNSIGNED NOT NULL COMMENT 'always 1',
    id        CHAR(32)         CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'hexadecimal digits',
    confirmed TINYINT(1)       NOT NULL COMMENT 'whether the store has it too',
    made_at   DATETIME(6)      NOT NULL COMMENT 'UTC',
    PRIMARY KEY (one)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
