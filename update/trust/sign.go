// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// specVersion is the TUF specification that the documents follow.
const specVersion = "1.0.34"

// RootSpec says who may sign what from now on.
type RootSpec struct {
	Version          int64
	Expires          time.Time
	RootKeys         []crypto.PublicKey
	RootThreshold    int64
	TargetsKeys      []crypto.PublicKey
	TargetsThreshold int64
}

// NewRoot writes a root and signs it with signers: the new root keys, and for a rotation the old ones as well. The roles
// of an online repository, snapshot and timestamp, stay with the targets keys, since no online key exists.
func NewRoot(spec RootSpec, signers ...crypto.Signer) ([]byte, error) {
	keys := map[string]any{}
	role := func(pubs []crypto.PublicKey, threshold int64) (map[string]any, error) {
		ids := []any{}
		for _, pub := range pubs {
			k, err := NewKey(pub)
			if err != nil {
				return nil, err
			}
			keys[k.ID] = k.tree()
			ids = append(ids, k.ID)
		}
		return map[string]any{"keyids": ids, "threshold": threshold}, nil
	}
	root, err := role(spec.RootKeys, spec.RootThreshold)
	if err != nil {
		return nil, err
	}
	targets, err := role(spec.TargetsKeys, spec.TargetsThreshold)
	if err != nil {
		return nil, err
	}
	b, err := signTree(map[string]any{
		"_type": RoleRoot, "spec_version": specVersion, "version": spec.Version, "expires": stamp(spec.Expires),
		"consistent_snapshot": true, "keys": keys,
		"roles": map[string]any{RoleRoot: root, RoleTargets: targets, RoleSnapshot: targets, RoleTimestamp: targets},
	}, signers)
	if err != nil {
		return nil, err
	}
	_, err = ParseRoot(b) // never hand out what nobody would accept
	return b, err
}

// SignTargets writes a list of releases and signs it. Version must rise with every list that leaves the house.
func SignTargets(version int64, expires time.Time, targets []Target, signers ...crypto.Signer) ([]byte, error) {
	list := map[string]any{}
	for _, t := range targets {
		if err := t.check(); err != nil {
			return nil, err
		}
		if _, twice := list[t.Path]; twice {
			return nil, refuse(RuleFormat, "target %s stands twice", t.Path)
		}
		hw := make([]any, len(t.HW))
		for i, v := range t.HW {
			hw[i] = v
		}
		list[t.Path] = map[string]any{
			"length": t.Length, "hashes": map[string]any{"sha256": strings.TrimPrefix(t.SHA256, "sha256:")},
			"custom": map[string]any{
				"product": t.Product, "hw": hw, "version": t.Version, "security_version": t.SecurityVersion,
				"data_floor": t.DataFloor, "min_from": t.MinFrom, "class": t.Class, "sbom": t.SBOM,
			},
		}
	}
	return signTree(map[string]any{
		"_type": RoleTargets, "spec_version": specVersion, "version": version, "expires": stamp(expires), "targets": list,
	}, signers)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func signTree(tree map[string]any, signers []crypto.Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, errors.New("nobody signs")
	}
	msg := canonical(tree)
	sigs := []any{}
	for _, s := range signers {
		k, err := NewKey(s.Public())
		if err != nil {
			return nil, err
		}
		sig, err := sign(s, msg)
		if err != nil {
			return nil, err
		}
		sigs = append(sigs, map[string]any{"keyid": k.ID, "sig": hex.EncodeToString(sig)})
	}
	return json.MarshalIndent(map[string]any{"signed": tree, "signatures": sigs}, "", " ")
}
