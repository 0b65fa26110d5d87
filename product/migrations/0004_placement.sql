-- SPDX-License-Identifier: AGPL-3.0-only

-- When units were placed on the market, or the cohort that they belong to, where somebody said so: subject is a batch, or
-- a device, whose own row goes before that of its batch. Exactly one of cohort and day is given; day is a text such as
-- 2027-03-01, which no zone moves. What was said before is in the audit log.
CREATE TABLE product_placement (
	tenant text NOT NULL,
	subject text NOT NULL,
	product text NOT NULL,
	cohort text NOT NULL,
	day text NOT NULL,
	actor text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (tenant, subject)
);
