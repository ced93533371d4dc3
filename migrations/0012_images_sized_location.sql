-- `width` and `height` are those at which an image is shown: after the orientation that its Exif block asks for. Rows that
-- were written before that, or by a gateway of the version before, have those of the file. This column is the same as
-- `location` where the size is known to be that of its image; a gateway looks at the other rows in the background.
-- It is invisible (MySQL from 8.0.23 on, MariaDB) to statements that name no columns, written for the table as it was.
-- MySQL knows no ADD COLUMN IF NOT EXISTS, and a start that died behind the change must not fail the next one.
SET @change = IF(
    EXISTS (SELECT 1 FROM information_schema.COLUMNS
            WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'images' AND COLUMN_NAME = 'sized_location'),
    'DO 0',
    'ALTER TABLE images ADD COLUMN sized_location VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL /*!80023 INVISIBLE */ /*M! INVISIBLE */');
PREPARE change_of_table FROM @change;
EXECUTE change_of_table;
DEALLOCATE PREPARE change_of_table;
