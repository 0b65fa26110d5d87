// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// SPDXVerdict is what the SPDX project's library makes of a document.
type SPDXVerdict struct {
	Packages int    // how many it found
	Wrong    string // what is wrong; empty where nothing is
}

// JudgeSPDX has the SPDX project's own library (spdx/tools-golang v0.6.0-rc4) read JSON documents of a version, "2.3" or
// "3.0.1".
func JudgeSPDX(ctx context.Context, version string, documents ...[]byte) ([]SPDXVerdict, error) {
	program, err := build(ctx, "spdx", ".")
	if err != nil {
		return nil, err
	}
	var in bytes.Buffer
	lines := json.NewEncoder(&in)
	for _, d := range documents {
		if err := lines.Encode(map[string]string{"version": version, "document": string(d)}); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("testpeers: tools-golang: %w", err)
	}
	var verdicts []SPDXVerdict
	for answers := json.NewDecoder(bytes.NewReader(out)); answers.More(); {
		var v SPDXVerdict
		if err := answers.Decode(&v); err != nil {
			return nil, fmt.Errorf("testpeers: tools-golang: %w", err)
		}
		verdicts = append(verdicts, v)
	}
	if len(verdicts) != len(documents) {
		return nil, fmt.Errorf("testpeers: tools-golang judged %d of %d documents", len(verdicts), len(documents))
	}
	return verdicts, nil
}
