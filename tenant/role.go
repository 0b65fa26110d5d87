// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Role is a named set of verbs.
type Role string

// The roles.
const (
	Owner                  Role = "owner"
	FleetOperator          Role = "fleet-operator"
	FirmwareEngineer       Role = "firmware-engineer"
	ProductSecurityOfficer Role = "product-security-officer"
	ComplianceOfficer      Role = "compliance-officer"
	Auditor                Role = "auditor"
	Customer               Role = "customer"
	DataRecipient          Role = "data-recipient"
)

// Roles is the table of who may do what, in the order that it is printed.
var Roles = []struct {
	Role  Role
	Text  string
	Verbs []Verb
}{
	{Owner, "Everything, including who else may enter.", all()},
	{FleetOperator, "Runs the fleet: lines, claims, commands, deployments, retirement.", []Verb{
		ProductRead, LineRead, LineWrite, IssuerRead, EnrolRead, EnrolWrite, DeviceRead, DeviceClaim, DeviceSuspend, DeviceRevoke,
		GroupWrite, TelemetryRead, CatalogueWrite, AlarmRead, AlarmWrite, NotifyRead, NotifyWrite, TwinWrite, CommandSend, ReleaseRead,
		DeploymentWrite, SBOMRead, VulnRead, CaseRead, AdvisoryRead, DeviceRetire, EvidenceRead, AuditRead}},
	{FirmwareEngineer, "Makes products and releases; cannot publish alone what security has not seen.", []Verb{
		ProductRead, ProductWrite, LineRead, EnrolRead, DeviceRead, TelemetryRead, CatalogueWrite, AlarmRead, ReleaseRead, ReleaseUpload, SBOMRead, VulnRead, CaseRead, AdvisoryRead, AdvisoryWrite, ConformWrite, EvidenceRead}},
	{ProductSecurityOfficer, "Decides on vulnerabilities, publishes releases and advisories, works the cases.", []Verb{
		ProductRead, LineRead, IssuerRead, EnrolRead, EnrolWrite, DeviceRead, DeviceSuspend, DeviceRevoke, AlarmRead, AlarmWrite, NotifyRead, NotifyWrite, ReleaseRead, ReleasePublish, DeploymentWrite, SBOMRead, VulnRead, VulnDecide,
		FeedImport, CaseRead, CaseWrite, CaseDeclare, AdvisoryRead, AdvisoryWrite, AdvisoryPublish, ConformWrite, ConformSign, EvidenceRead, AuditRead}},
	{ComplianceOfficer, "Owes the reports: declares, submits, erases, exports the proof.", []Verb{
		ProductRead, DeviceRead, AlarmRead, NotifyRead, ReleaseRead, SBOMRead, VulnRead, CaseRead, CaseWrite, CaseDeclare, AdvisoryRead, AdvisoryWrite, AdvisoryPublish, ConformWrite, ConformSign, DeviceErase, EvidenceRead,
		EvidenceExport, AuditRead, AccessRead}},
	{Auditor, "Reads everything but telemetry and exports evidence; changes nothing.", []Verb{
		ProductRead, LineRead, IssuerRead, EnrolRead, DeviceRead, AlarmRead, NotifyRead, ReleaseRead, SBOMRead, VulnRead, CaseRead, AdvisoryRead, EvidenceRead, EvidenceExport, AuditRead, AccessRead}},
	{Customer, "Uses the devices of the own solution.", []Verb{DeviceRead, DeviceClaim, TelemetryRead, DataShare, AlarmRead, TwinWrite, CommandSend, AdvisoryRead}},
	{DataRecipient, "Reads the telemetry that the user of devices shares with a third party; nothing else.", []Verb{TelemetryRead}},
}

func all() []Verb {
	vs := make([]Verb, len(Verbs))
	for i, v := range Verbs {
		vs[i] = v.Verb
	}
	return vs
}

// Has says whether the role includes v. An unknown role includes nothing.
func (r Role) Has(v Verb) bool {
	for _, row := range Roles {
		if row.Role == r {
			return slices.Contains(row.Verbs, v)
		}
	}
	return false
}

// Known says whether r is one of the roles.
func (r Role) Known() bool {
	for _, row := range Roles {
		if row.Role == r {
			return true
		}
	}
	return false
}

// Text is what the verb allows, to follow "may": "claim devices into a solution".
func (v Verb) Text() string {
	for _, row := range Verbs {
		if row.Verb == v {
			return row.Text
		}
	}
	return string(v)
}

// PrintRoles writes the table of roles for `openthings roles`: one line per verb, one column per role.
func PrintRoles(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := []string{"verb"}
	for _, r := range Roles {
		head = append(head, string(r.Role))
	}
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, v := range Verbs {
		row := []string{string(v.Verb)}
		for _, r := range Roles {
			cell := "-"
			if r.Role.Has(v.Verb) {
				cell = "yes"
			}
			row = append(row, cell)
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}
