// SPDX-License-Identifier: AGPL-3.0-only

package openbao

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/openbao/openbao/api/v2"

	"github.com/openthings-platform/openthings/identity"
)

// profiles are what a role allows beyond the base. All values but one are text, so that an access policy can pin them.
var profiles = map[string]map[string]any{
	"idevid":    {"client_flag": "true", "allowed_serial_numbers": "*", "not_before_duration": "3600"},
	"ldevid":    {"client_flag": "true", "allowed_serial_numbers": "*", "not_before_duration": "3600", "allowed_uri_sans": []any{"urn:openthings:device:*"}},
	"station":   {"client_flag": "true", "not_before_duration": "300", "allowed_uri_sans": []any{"urn:openthings:station:*"}},
	"server":    {"server_flag": "true", "allow_any_name": "true", "allow_ip_sans": "true", "not_before_duration": "3600"},
	"ocsp":      {"ext_key_usage": "OCSPSigning", "not_before_duration": "3600"},
	"bootstrap": {"server_flag": "true", "allow_any_name": "true", "allow_ip_sans": "true", "not_before_duration": "3600"},
}

// base is what every role says. Which keys are good is decided before: the engine would only know less about it.
var base = map[string]any{
	"allow_any_name": "false", "allow_localhost": "false", "allow_bare_domains": "false", "allow_subdomains": "false", "allow_glob_domains": "false",
	"allow_wildcard_certificates": "false", "allow_ip_sans": "false", "allowed_serial_numbers": "", "allowed_uri_sans": []any{}, "allowed_other_sans": "",
	"allowed_user_ids": "", "server_flag": "false", "client_flag": "false", "code_signing_flag": "false", "email_protection_flag": "false",
	"key_usage": "DigitalSignature", "ext_key_usage": "", "ext_key_usage_oids": "", "key_type": "any", "use_csr_common_name": "false", "use_csr_sans": "false",
	"require_cn": "true", "cn_validations": "disabled", "basic_constraints_valid_for_non_ca": "true", "generate_lease": "false", "policy_identifiers": "",
}

// definition is the role of a profile, but for its organization.
func definition(profile string, store bool) map[string]any {
	d := maps.Clone(base)
	maps.Copy(d, profiles[profile])
	d["no_store"] = strconv.FormatBool(!store)
	return d
}

var roleName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

// role returns the name of the role for the request. The organization of a certificate is the role's to say, so there is
// one per profile and tenant; it is written when this process first needs it, which also sets right what somebody
// changed. A token that may not write roles uses what is there.
func (is *Issuer) role(ctx context.Context, r identity.SignRequest) (string, error) {
	if profiles[r.Profile] == nil {
		return "", fmt.Errorf("openbao: there is no role for the profile %q", r.Profile)
	}
	name, org := r.Profile, r.Template.Subject.Organization
	switch {
	case len(org) > 1 || len(org) == 1 && !roleName.MatchString(org[0]):
		return "", fmt.Errorf("openbao: the organization %q cannot name a role", org)
	case len(org) == 1:
		name += "-" + org[0]
	}
	is.mu.Lock()
	known := is.roles[name]
	is.mu.Unlock()
	if known {
		return name, nil
	}
	d := definition(r.Profile, is.cfg.Store)
	d["organization"] = strings.Join(org, "")
	if _, err := is.write(ctx, "roles/"+name, d); err != nil && !answered(err, http.StatusForbidden, "") {
		return "", err
	}
	return name, nil
}

// know remembers a role that has signed, and forgets one that has not: it is written again then.
func (is *Issuer) know(role string, signed bool) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.roles[role] = signed
}

// Policy is the access policy (HCL) of the token that the platform runs with: it may sign through roles of the known
// shape, revoke, and sign revocation lists. It makes no authority, reads no key and changes no issuer.
func Policy(mount string, store bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What OpenThings needs of the PKI engine at %s/ day by day.\n", mount)
	rule := func(path, capabilities string) {
		fmt.Fprintf(&b, "path %q { capabilities = [%s] }\n", path, capabilities)
	}
	rule("auth/token/lookup-self", `"read"`)
	rule("auth/token/renew-self", `"update"`)
	rule(mount+"/issuers", `"list"`)
	rule(mount+"/keys", `"list"`)
	rule(mount+"/issuer/+/json", `"read"`)
	for _, p := range slices.Sorted(maps.Keys(profiles)) {
		rule(mount+"/issuer/+/sign/"+p+"*", `"update"`)
	}
	rule(mount+"/issuer/+/sign-revocation-list", `"update"`)
	rule(mount+"/revoke", `"update"`)
	rule(mount+"/certs", `"list"`)
	rule(mount+"/cert/+", `"read"`)
	b.WriteString("# Roles of exactly these shapes; only the organization is free.\n")
	for _, p := range slices.Sorted(maps.Keys(profiles)) {
		d := definition(p, store)
		names := slices.Sorted(maps.Keys(d))
		fmt.Fprintf(&b, "path \"%s/roles/%s*\" {\n  capabilities = [\"create\", \"update\"]\n  required_parameters = [\"%s\"]\n  allowed_parameters = {\n    \"organization\" = []\n",
			mount, p, strings.Join(names, `", "`))
		for _, n := range names {
			switch v := d[n].(type) {
			case string:
				fmt.Fprintf(&b, "    %q = [%q]\n", n, v)
			case []any:
				parts := make([]string, len(v))
				for i, e := range v {
					parts[i] = strconv.Quote(e.(string))
				}
				fmt.Fprintf(&b, "    %q = [[%s]]\n", n, strings.Join(parts, ", "))
			}
		}
		b.WriteString("  }\n}\n")
	}
	return b.String()
}

// SetupPolicy is what the first start and the rotation of an authority need beyond Policy.
func SetupPolicy(mount string) string {
	return fmt.Sprintf(`# For the first start, and while an authority is rotated.
path "sys/mounts/%[1]s" { capabilities = ["create", "update"] }
path "%[1]s/issuers/generate/intermediate/+" { capabilities = ["create", "update"] }
path "%[1]s/issuers/import/cert" { capabilities = ["create", "update"] }
path "%[1]s/issuer/+" { capabilities = ["read", "update", "delete"] }
path "%[1]s/key/+" { capabilities = ["read"] }
`, mount)
}

// Setup mounts the engine if nothing is mounted there. A repeat is harmless; a token that may not mount uses what is there.
func (is *Issuer) Setup(ctx context.Context) error {
	_, err := is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().ReadWithContext(ctx, "sys/internal/ui/mounts/"+is.cfg.Mount)
	})
	if !answered(err, http.StatusForbidden, "") { // which is also said of a mount that does not exist
		return err
	}
	_, err = is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().WriteWithContext(ctx, "sys/mounts/"+is.cfg.Mount, map[string]any{"type": "pki", "description": "device identities of OpenThings"})
	})
	if answered(err, http.StatusBadRequest, "already in use") {
		return nil
	}
	return err
}
