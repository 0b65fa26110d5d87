// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"strings"

	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// cveVersion is the version of the CVE record format that drafts are written in.
const cveVersion = "5.1.1"

// nobody stands where the CNA puts its own organisation: drafts are written before one has taken them over.
const nobody = "00000000-0000-4000-8000-000000000000"

// CVEDraft is what the manufacturer hands to a CNA (CVE JSON 5): the whole record where the vulnerability has a number, else
// the body {"cnaContainer": …} that CVE Services take for the number that they reserved.
func (s *Service) CVEDraft(ctx context.Context, id string) ([]byte, error) {
	adv, a, err := s.advisory(ctx, tenant.AdvisoryRead, id)
	if err != nil {
		return nil, err
	}
	f, err := s.learn(ctx, a.Tenant, adv.Product, adv.Vulnerability)
	if err != nil {
		return nil, err
	}
	p, _, err := s.publisher(ctx, a.Tenant)
	if err != nil {
		return nil, err
	}
	doc, err := f.document(adv, p, s.instant(), "Draft")
	if err != nil {
		return nil, err
	}
	var out any = object{"cnaContainer": f.cna(doc, p)}
	if number := doc.Vulnerabilities[0].CVE; number != "" {
		out = object{"dataType": "CVE_RECORD", "dataVersion": cveVersion,
			"cveMetadata": object{"cveId": number, "assignerOrgId": nobody, "state": "PUBLISHED"},
			"containers":  object{"cna": f.cna(doc, p)}}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err = enc.Encode(out)
	return b.Bytes(), err
}

// cveStatus are the words of CVE for what is said of a version.
var cveStatus = map[vuln.Status]string{vuln.DecidedAffected: "affected", vuln.Fixed: "unaffected", vuln.NotAffected: "unaffected", vuln.UnderInvestigation: "unknown"}

// cna is the container of the CNA: what the advisory says, in the words of CVE.
func (f facts) cna(d *csaf.Document, p Publisher) object {
	v, m := d.Vulnerabilities[0], d.Document
	var versions []object
	for _, r := range f.statuses {
		versions = append(versions, object{"version": r.Version, "status": cveStatus[r.Status], "versionType": "custom"})
	}
	out := object{
		"providerMetadata": object{"orgId": nobody},
		"title":            m.Title,
		"affected":         []object{{"vendor": p.Name, "product": f.product.Name, "defaultStatus": "unknown", "versions": versions}},
		"descriptions":     []object{{"lang": m.Lang, "value": m.Notes[0].Text}},
		"references":       cveReferences(m, v),
	}
	if v.CWE != nil {
		out["problemTypes"] = []object{{"descriptions": []object{{"lang": "en", "type": "CWE", "cweId": v.CWE.ID, "description": v.CWE.ID + " " + v.CWE.Name}}}}
	}
	if len(v.Scores) > 0 {
		c := v.Scores[0].CVSS3
		out["metrics"] = []object{{"format": "CVSS", "cvssV" + strings.ReplaceAll(c.Version, ".", "_"): c}}
	}
	for _, r := range v.Remediations {
		section := map[csaf.RemediationCategory]string{csaf.VendorFix: "solutions", csaf.Mitigation: "workarounds"}[r.Category]
		if section != "" {
			out[section] = []object{{"lang": m.Lang, "value": r.Details}}
		}
	}
	var credits []object
	for _, t := range m.Acknowledgments {
		for _, name := range t.Names {
			credits = append(credits, object{"lang": "en", "value": name, "type": "finder"})
		}
		if len(t.Names) == 0 {
			credits = append(credits, object{"lang": "en", "value": t.Organization, "type": "finder"})
		}
	}
	if credits != nil {
		out["credits"] = credits
	}
	return out
}

// cveReferences leads to the advisory first; the format wants at least one.
func cveReferences(m csaf.Meta, v csaf.Vulnerability) (out []object) {
	for _, r := range m.References {
		if strings.HasSuffix(r.URL, ".html") {
			out = append(out, object{"url": r.URL, "name": cmp.Or(m.Tracking.ID, r.Summary), "tags": []string{"vendor-advisory"}})
		}
	}
	for _, r := range v.References {
		out = append(out, object{"url": r.URL})
	}
	return out
}
