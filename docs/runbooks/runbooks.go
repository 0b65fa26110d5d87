// SPDX-License-Identifier: AGPL-3.0-only

// Package runbooks holds the runbooks that people need when there is no time to look for them.
package runbooks

import _ "embed"

// Reporting is the runbook for reports to authorities and users, Incident the one for incidents; both are Markdown.
var (
	//go:embed reporting.md
	Reporting string
	//go:embed incident.md
	Incident string
)
