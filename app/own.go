// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/sbom"
)

// watchOwn makes the platform the first product that it watches: the program's bill of materials, from its build
// information, is attached to a release of its own as soon as there is a tenant to watch it for.
func (h *house) watchOwn(ctx context.Context) error {
	for {
		tenants, err := h.tenant.Tenants(ctx)
		if err != nil {
			return err
		}
		if len(tenants) > 0 {
			if err := h.attachOwn(ctx, tenants[0].ID); err != nil {
				h.cfg.Log.WarnContext(ctx, "the platform's own bill of materials", "err", err)
			}
			<-ctx.Done()
			return nil
		}
		again := h.cfg.Clock.NewTimer(time.Minute)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil
		}
	}
}

func (h *house) attachOwn(ctx context.Context, tenant string) error {
	program, err := os.Open(h.cfg.Self)
	if err != nil {
		return err
	}
	defer program.Close()
	info, err := buildinfo.Read(program)
	if err != nil {
		return fmt.Errorf("%s: %w", h.cfg.Self, err)
	}
	hash := sha256.New()
	length, err := io.Copy(hash, program)
	if err != nil {
		return err
	}
	image := "sha256:" + hex.EncodeToString(hash.Sum(nil))
	version := info.Main.Version
	if version == "" || version == "(devel)" {
		version = "devel-" + strings.TrimPrefix(image, "sha256:")[:12]
	}
	doc, err := sbom.FromBuildInfo(info, image, "openthings", version)
	if err != nil {
		return err
	}
	_, err = h.update.WatchOwn(ctx, tenant, version, image, length, doc)
	return err
}
