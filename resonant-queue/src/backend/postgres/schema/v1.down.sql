DROP FUNCTION resonant_publish(text, text, json, json, interval, text);
DROP SCHEMA resonant_queue CASCADE;
