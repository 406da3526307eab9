"""The choice of the device."""

from NeuroCESTLib.panel.titled_choices import TitledChoices, device_titles


class DevicePage(TitledChoices):
    """Shows titles for the names of the devices."""

    def titles(self):
        """Return the titles by parameter and value."""
        return {"device": device_titles()}
