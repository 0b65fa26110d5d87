// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/respond/inform"
	"github.com/openthings-platform/openthings/tenant"
)

// TestCampaignReachesDevices: what users are told is shown on real devices of the audience too, and the proof counts who was
// asked, who keeps it and who acknowledged it.
func TestCampaignReachesDevices(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	lamp, lampConfig := m.real("SN-on")
	x, _ := power(t, lampConfig)
	w.reads(m.owner, "/v1/devices/"+lamp, func(body []byte) bool { return strings.Contains(string(body), `"online":true`) })
	ann := tenant.WithActor(t.Context(), tenant.Actor{ID: "per_ann", Kind: tenant.KindPerson, Tenant: m.tenant, Grants: []tenant.Grant{{Role: tenant.ComplianceOfficer, Tenant: m.tenant}}})
	if _, err := w.h.inform.AddContact(ann, inform.Contact{Role: "customer", Channel: inform.Mail, Language: "de", Person: inform.Person{Name: "Anna", Address: "anna@buyer.example"}, Products: []inform.Holding{{Product: m.product}}}); err != nil {
		t.Fatal(err)
	}
	c, err := w.h.inform.Draft(ann, inform.Words{Kind: inform.KindOther, Product: m.product, Subject: "Battery", Audience: inform.All, Devices: true, Language: "en",
		Texts: map[string]inform.Text{"en": {Title: "Change the battery", Text: "It may leak."}}})
	if err != nil {
		t.Fatal(err)
	}
	if c, err = w.h.inform.Send(ann, c.ID, c.Version); err != nil {
		t.Fatal(err)
	}
	m.noticed(lamp, c.ID, "stored")
	if list, err := x.Notices("de"); err != nil || len(list) != 1 || list[0].Title != "Change the battery" {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := x.NoticeAcknowledged(c.ID); err != nil {
		t.Fatal(err)
	}
	m.noticed(lamp, c.ID, "acknowledged")
	p, err := w.h.inform.Proof(ann, c.ID)
	if err != nil || len(p.Devices.Jobs) != 1 || p.Devices.Devices != 1 || p.Devices.Stored != 1 || p.Devices.Acknowledged != 1 || p.Recipients != 1 {
		t.Errorf("%+v, %v", p.Devices, err)
	}
}
