// SPDX-License-Identifier: Apache-2.0

package mqtt_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// M20: what Decode accepts Eclipse Paho's decoders (5.0 and 3.1.1) and mochi-mqtt's accept, and they understand the same;
// what they let through it refuses. The differential fuzz target is in the nested module testpeers/mqtt, so that nothing
// of them enters ours; here it runs on its seeds and on what fuzzing found.
func TestM20_PeersUnderstandWhatWeAccept(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-trimpath", "-vet=off", "-count=1", "./...")
	cmd.Dir, cmd.Env = filepath.Join("..", "..", "testpeers", "mqtt"), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the peers of wire/mqtt disagree, or their module does not build: %v\n%s", err, out)
	}
}
