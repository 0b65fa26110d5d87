// SPDX-License-Identifier: AGPL-3.0-only

package tenant

// Verb names what may be done to a kind of thing: "device.claim".
type Verb string

// The verbs, in the order of a device's life. Access to people and audit stands last.
const (
	ProductRead     Verb = "product.read"
	ProductWrite    Verb = "product.write"
	LineRead        Verb = "line.read"
	LineWrite       Verb = "line.write"
	IssuerRead      Verb = "issuer.read"
	EnrolRead       Verb = "enrol.read"
	EnrolWrite      Verb = "enrol.write"
	DeviceRead      Verb = "device.read"
	DeviceClaim     Verb = "device.claim"
	DeviceSuspend   Verb = "device.suspend"
	DeviceRevoke    Verb = "device.revoke"
	GroupWrite      Verb = "group.write"
	TelemetryRead   Verb = "telemetry.read"
	CatalogueWrite  Verb = "catalogue.write"
	DataShare       Verb = "data.share"
	AlarmRead       Verb = "alarm.read"
	AlarmWrite      Verb = "alarm.write"
	NotifyRead      Verb = "notify.read"
	NotifyWrite     Verb = "notify.write"
	TwinWrite       Verb = "twin.write"
	CommandSend     Verb = "command.send"
	ReleaseRead     Verb = "release.read"
	ReleaseUpload   Verb = "release.upload"
	ReleasePublish  Verb = "release.publish"
	DeploymentWrite Verb = "deployment.write"
	SBOMRead        Verb = "sbom.read"
	VulnRead        Verb = "vuln.read"
	VulnDecide      Verb = "vuln.decide"
	FeedImport      Verb = "feed.import"
	CaseRead        Verb = "case.read"
	CaseWrite       Verb = "case.write"
	CaseDeclare     Verb = "case.declare"
	AdvisoryRead    Verb = "advisory.read"
	AdvisoryWrite   Verb = "advisory.write"
	AdvisoryPublish Verb = "advisory.publish"
	ConformWrite    Verb = "conform.write"
	ConformSign     Verb = "conform.sign"
	DeviceRetire    Verb = "device.retire"
	DeviceErase     Verb = "device.erase"
	EvidenceRead    Verb = "evidence.read"
	EvidenceExport  Verb = "evidence.export"
	AuditRead       Verb = "audit.read"
	AccessRead      Verb = "access.read"
	AccessWrite     Verb = "access.write"
)

// Verbs lists every verb with the sentence that the table of roles prints.
var Verbs = []struct {
	Verb Verb
	Text string
}{
	{ProductRead, "read products and hardware revisions"},
	{ProductWrite, "create and change products, set the end of support"},
	{LineRead, "read production lines and batches"},
	{LineWrite, "open lines, stations and batches"},
	{IssuerRead, "read issuing authorities and the trust bundle"},
	{EnrolRead, "read enrolment policies, trusted CAs, tokens and the lobby"},
	{EnrolWrite, "set enrolment policies, trust CAs, make tokens, approve and deny devices"},
	{DeviceRead, "read devices, their state and installed software"},
	{DeviceClaim, "claim devices into a solution"},
	{DeviceSuspend, "suspend a device and lift the suspension"},
	{DeviceRevoke, "revoke devices, and all that a station, batch or trusted CA brought"},
	{GroupWrite, "make groups and label devices"},
	{TelemetryRead, "read telemetry"},
	{CatalogueWrite, "declare what a product's devices may send, why and for how long it is kept"},
	{DataShare, "let a third party read the data of the own devices (Data Act, article 5)"},
	{AlarmRead, "read alarms and their rules"},
	{AlarmWrite, "set rules that raise alarms, acknowledge and close alarms"},
	{NotifyRead, "read who is told of what, and whether it arrived"},
	{NotifyWrite, "set who is told of what by mail and webhook"},
	{TwinWrite, "set the desired state of devices"},
	{CommandSend, "send commands and jobs to devices"},
	{ReleaseRead, "read releases and deployments"},
	{ReleaseUpload, "upload signed releases with their SBOM"},
	{ReleasePublish, "publish a release"},
	{DeploymentWrite, "start, halt and end deployments"},
	{SBOMRead, "read bills of materials"},
	{VulnRead, "read findings and exposure"},
	{VulnDecide, "decide on a finding (VEX)"},
	{FeedImport, "import vulnerability records"},
	{CaseRead, "read cases and their clocks"},
	{CaseWrite, "work on cases"},
	{CaseDeclare, "declare awareness and record submissions"},
	{AdvisoryRead, "read security advisories that are not for everybody"},
	{AdvisoryWrite, "draft security advisories"},
	{AdvisoryPublish, "publish security advisories and hold them back"},
	{ConformWrite, "classify products, assess their risks, review components"},
	{ConformSign, "confirm a class, choose the conformity route, seal risk assessments, sign modification screens"},
	{DeviceRetire, "decommission and deprovision devices"},
	{DeviceErase, "erase a device's data"},
	{EvidenceRead, "read evidence"},
	{EvidenceExport, "export sealed evidence bundles"},
	{AuditRead, "read the audit log and its proofs"},
	{AccessRead, "read people, roles, tokens and solutions"},
	{AccessWrite, "invite people, grant roles, create tokens and solutions"},
}
