-- A subject's certificates by kind and phase. With the tenant in front, this index and not the one of endings answers
-- what is asked at every renewal, however large the tenant's fleet is.
DROP INDEX certificate_subject;
CREATE INDEX certificate_subject ON certificate (tenant, subject, kind, phase);
