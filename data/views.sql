-- Views over the tables of data/records.py. $summaries and $runs stand for the text files that are read.

-- The summaries of rounds.
CREATE OR REPLACE VIEW rounds AS
SELECT unnest(json_transform(document, '{
           "round": "VARCHAR", "recipe_name": "VARCHAR", "feedback": "VARCHAR", "objective": "VARCHAR",
           "policy_before": "VARCHAR", "policy_after": "VARCHAR",
           "primary": {
               "metric": "VARCHAR", "before": "DOUBLE", "after": "DOUBLE", "delta": "DOUBLE",
               "ci_low": "DOUBLE", "ci_high": "DOUBLE", "n": "BIGINT"
           },
           "verdict": "VARCHAR", "promoted": "BOOLEAN"
       }'), recursive := true), document AS summary
FROM (SELECT content AS document FROM $summaries) WHERE json_valid(document);

-- What the recipes of rounds called their rewards: an object by name in each summary.
CREATE OR REPLACE VIEW names AS
SELECT round, name, json_extract_string(asked, '$$.kind') AS reward,
       json_extract_string(asked, '$$.version') AS reward_version
FROM (SELECT round, unnest(json_keys(summary, '$$.rewards')) AS name, summary FROM rounds),
     LATERAL (SELECT json_extract(summary, '$$.rewards."' || name || '"') AS asked);

-- The labels that count: those of raters who are not excluded now, in their session or in all.
CREATE OR REPLACE VIEW counted_labels AS
SELECT * FROM labels WHERE NOT coalesce((
    SELECT arg_max(excluded, exclusions."at") FROM exclusions
    WHERE exclusions.rater = labels.rater AND exclusions.session IN ('', labels.session)
), false);

-- Edges from what was made to what it was made of.
CREATE OR REPLACE VIEW lineage AS
SELECT 'clip' AS child_kind, clip_id AS child, 'shows' AS relation, 'prompt' AS parent_kind,
       prompt_id AS parent FROM clips
UNION ALL SELECT 'clip', clip_id, 'sampled by', 'policy', policy_id FROM clips
UNION ALL SELECT 'curation', curation_id, CASE WHEN accepted THEN 'accepted' ELSE 'rejected' END,
       'clip', clip_id FROM examples
UNION ALL SELECT 'policy', policy_id, 'trained on', 'curation', curation_id FROM policies
       WHERE curation_id <> ''
UNION ALL SELECT 'policy', policy_id, 'adapts', 'base', base_id FROM policies
UNION ALL SELECT 'policy', policy_id, 'continues', 'policy', unnest(parents) FROM policies
UNION ALL SELECT 'round', round, 'started from', 'policy', policy_before FROM rounds
       WHERE policy_before IS NOT NULL
UNION ALL SELECT 'policy', policy_after, 'made in', 'round', round FROM rounds
       WHERE policy_after IS NOT NULL AND policy_after IS DISTINCT FROM policy_before;

-- Run facts: what took how long, what was cached. A line that a crash tore is left out. On object storage a log
-- is several files, <run id>.<process>.jsonl.
CREATE OR REPLACE VIEW timings AS
SELECT split_part(parse_filename(filename, true), '.', 1) AS run_id, unnest(json_transform(document, '{
           "time": "VARCHAR", "host": "VARCHAR", "stage": "VARCHAR", "key": "VARCHAR",
           "seconds": "DOUBLE", "cached": "BOOLEAN"
       }'), recursive := true), document AS fact
FROM (SELECT filename, unnest(string_split(content, chr(10))) AS document FROM $runs)
WHERE json_valid(document);
