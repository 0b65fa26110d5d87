// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"net/url"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/evidence/verify"
)

// AuditQuestion is one of the fifteen questions that an auditor, a notified body or a market surveillance authority asks in the
// first hour, and what this platform answers it with: a screen, and a sealed file that is checked elsewhere.
type AuditQuestion struct {
	Number   int      `json:"number"`
	Question string   `json:"question"`
	Screen   string   `json:"screen,omitempty" doc:"Path of the page that answers; {product} stands for the product's id"`
	File     string   `json:"file,omitempty" enum:"product,device,log" doc:"What the sealed file is about; absent: there is none yet"`
	Sections []string `json:"sections,omitempty" doc:"Of a file about a product"`
	Gap      string   `json:"gap,omitempty" doc:"What is not answered, or not by a file, and why"`
}

// At is where the page is, for a product; empty where it needs one and none is given.
func (a AuditQuestion) At(product string) string {
	if product == "" && strings.Contains(a.Screen, "{product}") {
		return ""
	}
	return strings.ReplaceAll(a.Screen, "{product}", url.QueryEscape(product))
}

// What the files are about.
const (
	fileProduct = "product"
	fileDevice  = "device"
	fileLog     = "log"
)

// Answers are the fifteen questions.
var Answers = []AuditQuestion{
	{Number: 1, Question: "Show the technical file of a product as it was placed on the market on a day.", Screen: "/products/{product}/conformity", File: fileProduct,
		Sections: []string{sectionSupport, sectionPages, sectionConformity, sectionComponents, sectionReleases},
		Gap:      "In part: the file holds each sealed or published version with its day, and one picks those of the day. Drawings, lab reports and the signed declaration are kept outside and linked as evidence."},
	{Number: 2, Question: "What is inside a firmware, and how do you know that this bill of materials belongs to this binary?", Screen: "/releases", File: fileProduct,
		Sections: []string{sectionReleases, sectionComponents}},
	{Number: 3, Question: "Which units does a vulnerability affect, where, since when, and how many are fixed today?", Screen: "/vulnerabilities",
		Gap: "The page answers, its list is a CSV without a signature. No sealed file yet."},
	{Number: 4, Question: "When did you become aware, who decided, and on what evidence?", Screen: "/inspect/4?product={product}", File: fileProduct,
		Sections: []string{verify.SectionCases, sectionSignals}},
	{Number: 5, Question: "Prove that the 24-hour, the 72-hour and the final report were on time.", Screen: "/inspect/5?product={product}", File: fileProduct,
		Sections: []string{verify.SectionCases}},
	{Number: 6, Question: "Show a case that you decided not to report.", Screen: "/inspect/6?product={product}", File: fileProduct,
		Sections: []string{sectionNegatives}},
	{Number: 7, Question: "How and when were users told?", Screen: "/inspect/7?product={product}", File: fileProduct,
		Sections: []string{verify.SectionCases, sectionInformed}},
	{Number: 8, Question: "Show that a device refuses unsigned, old or foreign firmware.",
		Gap: "Not answered by a page or a file: the refusals are shown by this platform's tests of its own agent, and a field refusal stands with its deployment. A conformance run per release is not recorded yet."},
	{Number: 9, Question: "What share of the fleet got the fix in 30 days, who did not, and why?", Screen: "/deployments",
		Gap: "The page of a deployment shows the coverage and who is left. No sealed file yet."},
	{Number: 10, Question: "Support period: reason, publication, proof that buyers saw it; what if a component ends earlier?", Screen: "/inspect/10?product={product}", File: fileProduct,
		Sections: []string{sectionSupport, sectionPages, sectionEndings},
		Gap:      "What was published and when is proven. That a buyer saw it is not: no sale passes through here."},
	{Number: 11, Question: "Open your disclosure process: the last ten reports.", Screen: "/inspect/11?product={product}", File: fileProduct,
		Sections: []string{verify.SectionReports},
		Gap:      "That a report came is in the log once an hour for the whole house; the steps that people took are proven one by one."},
	{Number: 12, Question: "Due diligence on a component; did you report upstream?", Screen: "/inspect/12?product={product}", File: fileProduct,
		Sections: []string{sectionComponents, sectionEndings, verify.SectionCases},
		Gap:      "What was reported upstream stands in the events of the case and in the steps of the report that found it; a fix that was shared is not recorded."},
	{Number: 13, Question: "Show a decommissioned device: gone, cannot return, data erased, evidence kept.", Screen: "/fleet", File: fileDevice},
	{Number: 14, Question: "Who can sign firmware or issue identities; all uses of last year; can an administrator alter this log?", Screen: "/issuers", File: fileLog,
		Gap: "Issued certificates and releases are in the export of the log, the whole log is verified on the page Evidence. A list that is reconciled with the issuer's own is not made yet."},
	{Number: 15, Question: "Which requirements did you declare not applicable, and why; what changed since the last release, and was it a substantial modification?", Screen: "/inspect/15?product={product}", File: fileProduct,
		Sections: []string{sectionConformity}},
}

// answerTo is the answer with that number.
func answerTo(n int) (AuditQuestion, bool) {
	i := slices.IndexFunc(Answers, func(a AuditQuestion) bool { return a.Number == n })
	if i < 0 {
		return AuditQuestion{}, false
	}
	return Answers[i], true
}
