// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// JudgeCycloneDX holds JSON documents of a version ("1.6") against the strict schema in the CycloneDX project's own library
// (@cyclonedx/cyclonedx-library 10.3.0). It returns what is wrong with each document, "" where nothing is.
func JudgeCycloneDX(ctx context.Context, version string, documents ...[]byte) ([]string, error) {
	lib, err := install(ctx, "cdxjs")
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
	cmd := exec.CommandContext(ctx, "node", filepath.Join(lib, "client.mjs"))
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("testpeers: cyclonedx-library: %w", err)
	}
	var wrong []string
	for line := range bytes.Lines(out) {
		if line = bytes.TrimSpace(line); string(line) == "null" {
			line = nil
		}
		wrong = append(wrong, string(line))
	}
	if len(wrong) != len(documents) {
		return nil, fmt.Errorf("testpeers: cyclonedx-library judged %d of %d documents", len(wrong), len(documents))
	}
	return wrong, nil
}
