// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// Every operation of lines, claims and identity is asked by every role; only those whose row of the table holds the
// verb get in, and the refused change nothing.
func TestEveryRole(t *testing.T) {
	hand := clock.NewHand(time.Now())
	h := newHouse(t, storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand }), hand)
	st, station := h.station("B1", 100, 100)
	_, unit := h.unit(st, "L1")
	_, list := h.call("GET", "/v1/batches", nil)
	batch := list["items"].([]any)[0].(map[string]any)["id"].(string)
	reason := map[string]any{"reason": "test"}
	for _, op := range []struct {
		method, path string
		body         any
		verb         tenant.Verb
	}{
		{"GET", "/v1/batches", nil, tenant.LineRead},
		{"GET", "/v1/batches/" + batch, nil, tenant.LineRead},
		{"GET", "/v1/stations", nil, tenant.LineRead},
		{"POST", "/v1/batches", map[string]any{"revision": h.revision, "name": "x", "size": 1}, tenant.LineWrite},
		{"POST", "/v1/batches/" + batch + "/close", map[string]any{"produced": 1}, tenant.LineWrite},
		{"POST", "/v1/stations", map[string]any{"batch": batch, "name": "x", "csr": "x"}, tenant.LineWrite},
		{"POST", "/v1/stations/" + station + "/kill", reason, tenant.LineWrite},
		{"GET", "/v1/batches/" + batch + "/manifest", nil, tenant.LineRead},
		{"GET", "/v1/batches/" + batch + "/differences", nil, tenant.LineRead},
		{"POST", "/v1/batches/" + batch + "/produced", "x", tenant.LineWrite},
		{"GET", "/v1/stations/" + station, nil, tenant.LineRead},
		{"GET", "/v1/stations/" + station + "/devices", nil, tenant.LineRead},
		{"GET", "/v1/stations/" + station + "/refusals", nil, tenant.LineRead},
		{"POST", "/v1/preauthorised", map[string]any{"product": "x", "serial": "A"}, tenant.LineWrite},
		{"POST", "/v1/preauthorised/import", "x", tenant.LineWrite},
		{"GET", "/v1/preauthorised?product=x", nil, tenant.LineRead},
		{"POST", "/v1/preauthorised/revoke", map[string]any{"product": "x", "serials": []string{"A"}}, tenant.LineWrite},
		{"GET", "/v1/lobby", nil, tenant.EnrolRead},
		{"POST", "/v1/lobby/approve", map[string]any{"devices": []string{unit.Device}, "solution": h.solution}, tenant.EnrolWrite},
		{"POST", "/v1/lobby/deny", map[string]any{"devices": []string{unit.Device}, "reason": "test"}, tenant.EnrolWrite},
		{"GET", "/v1/hooks", nil, tenant.EnrolRead},
		{"POST", "/v1/hooks", map[string]any{"url": "x"}, tenant.EnrolWrite},
		{"POST", "/v1/hooks/drop", map[string]any{}, tenant.EnrolWrite},
		{"POST", "/v1/devices/" + unit.Device + "/claim-code", nil, tenant.LineWrite},
		{"GET", "/v1/devices/" + unit.Device + "/manufacture", nil, tenant.DeviceRead},
		{"GET", "/v1/devices/" + unit.Device + "/labels", nil, tenant.DeviceRead},
		{"PUT", "/v1/devices/" + unit.Device + "/labels", map[string]any{"labels": map[string]string{}}, tenant.DeviceClaim},
		{"POST", "/v1/claims", map[string]any{"code": unit.Claim, "solution": h.solution}, tenant.DeviceClaim},
		{"GET", "/v1/devices/" + unit.Device + "/certificates", nil, tenant.DeviceRead},
		{"POST", "/v1/devices/" + unit.Device + "/suspend", reason, tenant.DeviceSuspend},
		{"POST", "/v1/devices/" + unit.Device + "/resume", reason, tenant.DeviceSuspend},
	} {
		for _, role := range tenant.Roles {
			before := h.count(`SELECT count(*) FROM audit_entry`)
			code, out := h.callAs(string(role.Role), op.method, op.path, op.body)
			if role.Role.Has(op.verb) {
				if code == 403 && out["rule"] == "access."+string(op.verb) || code >= 500 {
					t.Errorf("%s %s as %s: %d %v", op.method, op.path, role.Role, code, out)
				}
				continue
			}
			if code != 403 || out["rule"] != "access."+string(op.verb) {
				t.Errorf("%s %s as %s: %d %v, want a refusal", op.method, op.path, role.Role, code, out)
			}
			if h.count(`SELECT count(*) FROM audit_entry`) != before {
				t.Errorf("%s %s as %s was refused and left a trace", op.method, op.path, role.Role)
			}
		}
	}
}
