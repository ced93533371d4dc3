-- The list of images by size: with the key behind it, so that each page of it is read from the index on from the last
-- row of the page before, however many images have the same size. By age, `images_updated_at` is enough: InnoDB ends
-- every index with the primary key.
-- MySQL knows no CREATE INDEX IF NOT EXISTS.
SET @change = IF(
    EXISTS (SELECT 1 FROM information_schema.STATISTICS
            WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'images' AND INDEX_NAME = 'images_size'),
    'DO 0',
    'CREATE INDEX images_size ON images (size, image_key)');
PREPARE change_of_table FROM @change;
EXECUTE change_of_table;
DEALLOCATE PREPARE change_of_table;
