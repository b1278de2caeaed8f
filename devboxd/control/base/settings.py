"""The configuration in force: what holds now, and what is wrong with the files it should come from."""

from __future__ import annotations

from devboxd.control.base.news import News
from devboxd.model.config import Config, ConfigInvalid


class Settings:
    """Replaced as a whole when a file changes. What is open stays as it is; what is new asks here."""

    def __init__(self, news: News, config: Config) -> None:
        self.config = config
        self._news = news
        self._refusal: ConfigInvalid | None = None

    def take(self, config: Config, error: ConfigInvalid | None, *, is_whole: bool = True) -> bool:
        """Use a configuration from now on; say whether it is another one.

        Args:
            error: what is wrong with the files on disk, so that an earlier configuration is in force.
            is_whole: False where there is no earlier one either: this is only what is built in.
        """
        if is_other := config != self.config:
            self._news.tell("config.loaded", "the configuration was read again")
        self.config = config
        self._refusal = None if is_whole else error
        if error is None:
            self._news.clear_condition("config-invalid")
        else:
            follows = (
                "the last good configuration stays in force"
                if is_whole
                else "there is no earlier one, so nothing is asked of AWS until it is mended"
            )
            self._news.raise_condition(
                "config-invalid", problem=error.message, follows=follows, hint=error.hint
            )
        return is_other

    def for_aws(self) -> Config:
        """The configuration, for what may reach an account or a box.

        Raises:
            ConfigInvalid: nobody knows what the user has set. It could be another account, and another box.
        """
        if self._refusal is not None:
            raise self._refusal
        return self.config
