// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11

package keys_test

import (
	"testing"

	"github.com/openthings-platform/openthings/agent/keys"
	"github.com/openthings-platform/openthings/hardware/hardwaretest"
)

func TestToken(t *testing.T) { life(t, hardwaretest.NewToken(t).URI, keys.KindToken) }
