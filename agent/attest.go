// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/openthings-platform/openthings/agent/keys"
	"github.com/openthings-platform/openthings/wire"
)

// prove shows the platform that the key of that name is in hardware, before a certificate over it is asked for. Devices
// whose store can prove nothing do nothing. A proof that fails stops nobody: whether a certificate is to be had without
// one is for the platform to say.
func (a *agent) prove(ctx context.Context, as *credential, name string, key crypto.PublicKey) {
	store, ok := a.keys.(keys.Attester)
	if !ok || a.proven != nil && sameKey(a.proven, key) {
		return
	}
	err := a.attest(ctx, as, store, name)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound { // a platform that asks for no proofs
		err = nil
	}
	if err != nil {
		a.Log.Warn("the key's place in hardware is not proven", slog.Any("error", err))
		return
	}
	a.proven = key
}

func (a *agent) attest(ctx context.Context, as *credential, store keys.Attester, name string) error {
	r, err := store.Request()
	if err != nil {
		return err
	}
	var c wire.AttestChallenge
	if err := a.exchange(ctx, as, "/d/1/attest/challenge", r, &c); err != nil {
		return err
	}
	p, err := store.Prove(name, c)
	if err != nil {
		return err
	}
	var verdict struct{}
	return a.exchange(ctx, as, "/d/1/attest/answer", p, &verdict)
}

// exchange posts one JSON message and reads another.
func (a *agent) exchange(ctx context.Context, as *credential, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	answer, err := a.do(ctx, as, "POST", path, "application/json", body, 64<<10)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
