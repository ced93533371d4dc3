-- A date in a header has whole seconds, and an image may be stored within the same second as the one before it under
-- the same key. Then that date says nothing about which of the two it is. This column has the latest date of an earlier
-- image of the key where `updated_at` is not in a later second, and NULL everywhere else.
-- It is invisible (MySQL from 8.0.23 on, MariaDB) to statements that name no columns, written for the table as it was.
-- MySQL knows no ADD COLUMN IF NOT EXISTS, and a start that died behind the change must not fail the next one.
SET @change = IF(
    EXISTS (SELECT 1 FROM information_schema.COLUMNS
            WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'images' AND COLUMN_NAME = 'earlier_at'),
    'DO 0',
    'ALTER TABLE images ADD COLUMN earlier_at DATETIME(6) NULL DEFAULT NULL /*!80023 INVISIBLE */ /*M! INVISIBLE */ AFTER updated_at');
PREPARE change_of_table FROM @change;
EXECUTE change_of_table;
DEALLOCATE PREPARE change_of_table;
