package boot

// CompareVersions compares two versions, or names that have one, as package
// managers do: numbers in them as numbers, and the rest as text.
func CompareVersions(a, b string) int { return compareVersions(a, b) }
