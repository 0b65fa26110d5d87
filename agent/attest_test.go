// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"encoding/pem"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/identity"
)

// diary is what a device logged.
type diary struct {
	mu   sync.Mutex
	text strings.Builder
}

func (d *diary) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(b)
}

func (d *diary) says(what string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Contains(d.text.String(), what)
}

// TestAttestedKeysOnly: under a policy that demands grade A, a unit with its keys in files stays outside; one with a TPM
// comes in as soon as the maker of the TPM is trusted, at its enrolment and at its renewals, and without a human.
func TestAttestedKeysOnly(t *testing.T) {
	h := newPlatform(t)
	ok(h.enroll.SetPolicy(t.Context(), ten, enroll.Policy{Label: enroll.DefaultLabel, Grade: identity.GradeA}, "per_1"))(t)
	maker := hardwaretest.NewMaker(t)
	born := func(serial, where string) (*device, *diary) {
		d, log := h.bornWith(serial, where), &diary{}
		d.cfg.Log = slog.New(slog.NewTextHandler(log, nil))
		return d.on(), log
	}
	file, fileLog := born("SN-1", "file")
	chip, chipLog := born("SN-2", "tpm:"+maker.NewTPM().Where)
	eventually(t, func() bool { return fileLog.says("grade A") && chipLog.says("grade A") })

	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Chain[0].Raw})
	ok(h.enroll.TrustMaker(t.Context(), ten, "Test", string(authority), "per_1"))(t)
	chip.inventory(anyInventory)
	if d := ok(h.identity.Get(t.Context(), ten, chip.id))(t); d.Grade != identity.GradeA {
		t.Errorf("its grade is %q", d.Grade)
	}
	chip.off()
	h.hand.Advance(47 * 24 * time.Hour)
	chip.on()
	eventually(t, func() bool { return chip.certificates()["ldevid superseded"] == 1 })
	if proofs := ok(h.enroll.Attestations(t.Context(), ten, chip.id))(t); len(proofs) != 2 || proofs[0].Grade != identity.GradeA || proofs[1].Grade != identity.GradeA {
		t.Errorf("its two keys have the proofs %+v", proofs)
	}
	if got := file.certificates(); len(got) != 1 {
		t.Errorf("the unit without a TPM has the certificates %v", got)
	}
}
