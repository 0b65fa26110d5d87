// SPDX-License-Identifier: AGPL-3.0-only

package csaf

// ProductTree names every product that the document speaks of (section 3.2.2).
type ProductTree struct {
	Branches         []Branch       `json:"branches,omitempty"`
	FullProductNames []Product      `json:"full_product_names,omitempty"`
	ProductGroups    []ProductGroup `json:"product_groups,omitempty"`
	Relationships    []Relationship `json:"relationships,omitempty"`
}

// Branch is one step from a vendor to a version (section 3.1.2): it has further branches or is a product.
type Branch struct {
	Branches []Branch       `json:"branches,omitempty"`
	Category BranchCategory `json:"category"`
	Name     string         `json:"name"`
	Product  *Product       `json:"product,omitempty"`
}

// BranchCategory is what a branch's name names.
type BranchCategory string

// The categories of branches.
const (
	BranchArchitecture        BranchCategory = "architecture"
	BranchHostName            BranchCategory = "host_name"
	BranchLanguage            BranchCategory = "language"
	BranchLegacy              BranchCategory = "legacy"
	BranchPatchLevel          BranchCategory = "patch_level"
	BranchProductFamily       BranchCategory = "product_family"
	BranchProductName         BranchCategory = "product_name"
	BranchProductVersion      BranchCategory = "product_version"
	BranchProductVersionRange BranchCategory = "product_version_range"
	BranchServicePack         BranchCategory = "service_pack"
	BranchSpecification       BranchCategory = "specification"
	BranchVendor              BranchCategory = "vendor"
)

// Product is a full product name (section 3.1.3): ProductID is how the rest of the document calls it.
type Product struct {
	Name      string   `json:"name"`
	ProductID string   `json:"product_id"`
	Helper    *Helpers `json:"product_identification_helper,omitempty"`
}

// Helpers is by what else the product is known (section 3.1.3.3).
type Helpers struct {
	CPE           string        `json:"cpe,omitempty"`
	Hashes        []FileHashes  `json:"hashes,omitempty"`
	ModelNumbers  []string      `json:"model_numbers,omitempty"`
	PURL          string        `json:"purl,omitempty"`
	SBOMURLs      []string      `json:"sbom_urls,omitempty"`
	SerialNumbers []string      `json:"serial_numbers,omitempty"`
	SKUs          []string      `json:"skus,omitempty"`
	GenericURIs   []GenericURIs `json:"x_generic_uris,omitempty"`
}

// FileHashes are the digests of one file.
type FileHashes struct {
	FileHashes []FileHash `json:"file_hashes"`
	Filename   string     `json:"filename"`
}

// FileHash is a digest: the algorithm in the words of OpenSSL (sha256), the value in lower case hexadecimal digits.
type FileHash struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"value"`
}

// GenericURIs is a name in a scheme of one's own.
type GenericURIs struct {
	Namespace string `json:"namespace"`
	URI       string `json:"uri"`
}

// ProductGroup gives two or more products one name (section 3.2.2.3).
type ProductGroup struct {
	GroupID    string   `json:"group_id"`
	ProductIDs []string `json:"product_ids"`
	Summary    string   `json:"summary,omitempty"`
}

// Relationship makes a product of two others (section 3.2.2.4), such as a component as it is part of a firmware.
type Relationship struct {
	Category         RelationshipCategory `json:"category"`
	Product          Product              `json:"full_product_name"`
	ProductReference string               `json:"product_reference"`            // the component
	RelatesTo        string               `json:"relates_to_product_reference"` // what it is part of
}

// RelationshipCategory is how the two belong together.
type RelationshipCategory string

// The categories of relationships.
const (
	DefaultComponentOf  RelationshipCategory = "default_component_of"
	ExternalComponentOf RelationshipCategory = "external_component_of"
	InstalledOn         RelationshipCategory = "installed_on"
	InstalledWith       RelationshipCategory = "installed_with"
	OptionalComponentOf RelationshipCategory = "optional_component_of"
)

// Path is a branch's way from the root, such as vendor, product name, product version.
type Path []Branch

// Name is the name of the innermost branch of the category, "" if the path has none.
func (p Path) Name(c BranchCategory) string {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i].Category == c {
			return p[i].Name
		}
	}
	return ""
}

// Products calls fn for each product that the tree defines: those of the branches with their path, the bare ones and
// those that relationships make. A nil tree has none.
func (t *ProductTree) Products(fn func(p Product, path Path)) {
	if t == nil {
		return
	}
	walk(t.Branches, nil, fn)
	for _, p := range t.FullProductNames {
		fn(p, nil)
	}
	for _, r := range t.Relationships {
		fn(r.Product, nil)
	}
}

func walk(branches []Branch, above Path, fn func(Product, Path)) {
	for _, b := range branches {
		path := append(above[:len(above):len(above)], b)
		if b.Product != nil {
			fn(*b.Product, path)
		}
		walk(b.Branches, path, fn)
	}
}

// Expand gives the ids of products and of the members of groups, sorted and each once.
func (t *ProductTree) Expand(products, groups []string) []string {
	all := append([]string(nil), products...)
	if t != nil {
		for _, g := range t.ProductGroups {
			for _, id := range groups {
				if g.GroupID == id {
					all = append(all, g.ProductIDs...)
				}
			}
		}
	}
	return set(all)
}
