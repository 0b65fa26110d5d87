// The library of the SPDX project, which reads the bills of materials that the platform writes. Nothing of it enters the platform.
module github.com/openthings-platform/openthings/testpeers/spdx

go 1.26.3

require github.com/spdx/tools-golang v0.6.0-rc4

require (
	github.com/anchore/go-struct-converter v0.2.0-rc2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/piprate/json-gold v0.7.0 // indirect
	github.com/pquerna/cachecontrol v0.0.0-20180517163645-1555304b9b35 // indirect
)
