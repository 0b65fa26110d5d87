-- An index costs its write at every certificate: a new LDevID is pending, and enters the index of endings when it is in use.
DROP INDEX certificate_ending;
CREATE INDEX certificate_ending ON certificate (tenant, not_after) WHERE kind = 'ldevid' AND phase = 'active';
