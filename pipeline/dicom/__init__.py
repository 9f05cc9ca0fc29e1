"""DICOM as bytes: the element scanner, its limits, and the admission of one file."""
